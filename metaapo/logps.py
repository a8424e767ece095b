"""Sequence log-probabilities: the one function under every loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaapo.data import DataError

IntList = Sequence[int]


@dataclass(frozen=True)
class SequenceBatch:
    """Prompts padded on the left and responses on the right, so that all responses start at one position.

    Attributes:
        input_ids: int64 (batch, prompt_width + response_width).
        attention_mask: int64, same shape, 1 on real tokens.
        response_mask: float32 (batch, response_width), 1 on response tokens (EOS included).
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor

    @property
    def position_ids(self) -> Tensor:
        """int64 (batch, width): positions count real tokens only, so padding changes nothing."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)


def collate(prompts: Sequence[IntList], responses: Sequence[IntList], pad_id: int) -> SequenceBatch:
    """Lay prompts and responses (token ids) out as one batch.

    Raises:
        DataError: a prompt or a response is empty.
    """
    if any(not prompt for prompt in prompts) or any(not response for response in responses):
        raise DataError("empty prompt or response: every sequence needs at least one token of each (EOS counts)")
    prompt_width = max(map(len, prompts))
    response_width = max(map(len, responses))
    ids, mask, response_mask = [], [], []
    for prompt, response in zip(prompts, responses, strict=True):
        left, right = prompt_width - len(prompt), response_width - len(response)
        ids.append([pad_id] * left + [*prompt, *response] + [pad_id] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(response)) + [0] * right)
        response_mask.append([1.0] * len(response) + [0.0] * right)
    return SequenceBatch(torch.tensor(ids), torch.tensor(mask), torch.tensor(response_mask))


def token_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response token given everything before it.

    Logits are computed at response positions only: the output layer is a fifth of a small model's work.

    Returns:
        float32 (batch, response_width), natural log, <= 0; padding is 0.
    """
    device = next(model.parameters()).device
    width = batch.response_mask.shape[1]
    logits = model(
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask.to(device),
        position_ids=batch.position_ids.to(device),
        logits_to_keep=width + 1,
        use_cache=False,
    ).logits[:, :-1]
    targets = batch.input_ids[:, -width:].to(device)
    chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1).float()
    logps = chosen - torch.logsumexp(logits.float(), dim=-1)
    return logps * batch.response_mask.to(device)


def sequence_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response: log pi(y given x).

    Returns:
        float32 (batch,), natural log, summed over response tokens; padding excluded.
    """
    return token_logps(model, batch).sum(-1)


@torch.no_grad()
def all_sequence_logps(
    model: nn.Module,
    prompts: Sequence[IntList],
    responses: Sequence[IntList],
    pad_id: int,
    batch_size: int = 256,
) -> Tensor:
    """Log-probabilities of many responses, batched by length, without gradients.

    Args:
        model: the causal language model.
        prompts: token ids of each prompt.
        responses: token ids of each response, same order.
        pad_id: token id used for padding.
        batch_size: sequences a forward pass.

    Returns:
        float32 (n,), on the CPU, in the order given.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]) + len(responses[i]), len(prompts[i])))
    logps = torch.zeros(len(prompts))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([prompts[i] for i in rows], [responses[i] for i in rows], pad_id)
        logps[rows] = sequence_logps(model, batch).cpu()
    return logps
