"""Sequence log-probabilities: the one function under every loss.

Responses to one prompt share that prompt's computation, and short sequences share a row: a row holds *trees*, each a
prompt followed by its responses, and an attention mask lets a token see its own prompt and its own response only. The
numbers are those of one forward pass a sequence, to rounding; the work is a half to a third of a padded batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from metaapo.data import DataError

IntList = Sequence[int]
PROMPT = -1  # branch number of prompt tokens, which every response of the tree sees


@dataclass(frozen=True)
class SequenceBatch:
    """n responses to prompts, packed into rows. The m response tokens (EOS included) stand in the order given.

    Attributes:
        input_ids: int64 (rows, width).
        position_ids: int64 (rows, width): a token's place in its own prompt and response.
        attention_mask: bool (rows, 1, width, width): which tokens (last axis) a token sees.
        targets: int64 (m,): the response tokens.
        positions: int64 (m,): where each stands, in the flattened rows.
        sources: int64 (m,): the position whose output predicts it: the token before it in its sequence.
        owners: int64 (m,): the response it belongs to, 0 to n - 1.
        steps: int64 (m,): its place in the response, from 0.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    positions: Tensor
    sources: Tensor
    owners: Tensor
    steps: Tensor

    @property
    def ends(self) -> Tensor:
        """int64 (n,): position of each response's last token."""
        last = torch.cat([self.owners.diff() != 0, torch.tensor([True])])
        return self.positions[last]

    @property
    def response_mask(self) -> Tensor:
        """float32 (n, longest response): 1 on response tokens."""
        return self.padded(torch.ones(len(self.targets)))

    def padded(self, values: Tensor) -> Tensor:
        """Lay values of the response tokens (m,) out as (n, longest response), padded with 0 on the right."""
        shape = (int(self.owners[-1]) + 1, int(self.steps.max()) + 1)
        owners, steps = self.owners.to(values.device), self.steps.to(values.device)
        return values.new_zeros(shape).index_put((owners, steps), values)


def collate(prompts: Sequence[IntList], responses: Sequence[IntList], pad_id: int) -> SequenceBatch:
    """Pack prompts and responses (token ids) into one batch; equal prompts are stored once.

    Args:
        prompts: the prompt of each response.
        responses: same order.
        pad_id: fills the rows' ends.

    Raises:
        DataError: a prompt or a response is empty.
    """
    if any(not prompt for prompt in prompts) or any(not response for response in responses):
        raise DataError("empty prompt or response: every sequence needs at least one token of each (EOS counts)")
    trees: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        trees.setdefault(tuple(prompt), []).append(i)
    sizes = [len(prompt) + sum(len(responses[i]) for i in own) for prompt, own in trees.items()]
    rows = _fill_rows(sizes)
    shape = (len(rows), max(sizes))
    ids, places = np.full(shape, pad_id), np.zeros(shape, np.int64)
    tree_of, branch_of = np.full(shape, -1), np.full(shape, PROMPT)
    starts, sources = np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.int64)
    order = list(trees.items())
    for row, members in enumerate(rows):
        end = 0
        for tree in members:
            prompt, own = order[tree]
            start, end = end, end + len(prompt)
            prompt_end = end
            ids[row, start:end], places[row, start:end] = prompt, np.arange(len(prompt))
            for i in own:
                begin, end = end, end + len(responses[i])
                ids[row, begin:end], branch_of[row, begin:end] = responses[i], i
                places[row, begin:end] = len(prompt) + np.arange(len(responses[i]))
                starts[i], sources[i] = row * shape[1] + begin, row * shape[1] + prompt_end - 1
            tree_of[row, start:end] = tree
    lengths = [len(response) for response in responses]
    owners = np.repeat(np.arange(len(responses)), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    positions = starts[owners] + steps
    columns = (ids.ravel()[positions], positions, np.where(steps > 0, positions - 1, sources[owners]), owners, steps)
    mask = torch.from_numpy(_visible(tree_of, branch_of))
    return SequenceBatch(torch.from_numpy(ids), torch.from_numpy(places), mask, *map(torch.from_numpy, columns))


def _fill_rows(sizes: list[int]) -> list[list[int]]:
    """Put trees into rows no longer than the longest tree, first fit, longest first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for tree in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        row = next((r for r, free in enumerate(room) if free >= sizes[tree]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max(sizes))
        rows[row].append(tree)
        room[row] -= sizes[tree]
    return rows


def _visible(tree_of: np.ndarray, branch_of: np.ndarray) -> np.ndarray:
    """Which tokens a token sees: earlier ones of its own tree that are prompt or its own branch (padding: itself)."""
    query, key = tree_of[:, :, None], tree_of[:, None, :]
    same_branch = (branch_of[:, None, :] == PROMPT) | (branch_of[:, :, None] == branch_of[:, None, :])
    width = tree_of.shape[1]
    causal = np.tril(np.ones((width, width), bool))
    return ((query == key) & same_branch & causal)[:, None]


def hidden_states(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Last hidden states of a language or reward model, (rows * width, hidden size)."""
    device = next(model.parameters()).device
    output = model.base_model(
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask.to(device),
        position_ids=batch.position_ids.to(device),
        use_cache=False,
    )
    return output.last_hidden_state.flatten(0, 1)


class LogpsModule(nn.Module):
    """A policy whose forward pass is `_flat_logps`: what is wrapped for several processes has to be called itself."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.config = policy.config  # DeepSpeed reads the hidden size there
        self._no_split_modules = policy._no_split_modules  # FSDP spreads the weights layer by layer

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Log-probability of each response token, float32 (m,)."""
        return _flat_logps(self.policy, batch)


def _flat_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response token, float32 (m,); the output layer is applied at those positions only."""
    if not hasattr(model, "get_output_embeddings"):  # a LogpsModule, wrapped for several processes
        return model(batch)
    states = hidden_states(model, batch)
    logits = model.get_output_embeddings()(states[batch.sources.to(states.device)]).float()
    targets = batch.targets.to(logits.device)
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, dim=-1)


def token_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response token given everything before it.

    Returns:
        float32 (n, longest response), natural log, <= 0; padding is 0.
    """
    return batch.padded(_flat_logps(model, batch))


def sequence_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response: log pi(y given x).

    Returns:
        float32 (n,), natural log, summed over response tokens; padding excluded.
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
        prompts: token ids of each response's prompt; equal ones are computed once a batch.
        responses: token ids of each response, same order.
        pad_id: token id used for padding.
        batch_size: sequences a forward pass.

    Returns:
        float32 (n,), on the CPU, in the order given.
    """
    logps = torch.zeros(len(prompts))
    for rows in length_batches(prompts, responses, batch_size):
        batch = collate([prompts[i] for i in rows], [responses[i] for i in rows], pad_id)
        logps[rows] = sequence_logps(model, batch).cpu()
    return logps


def length_batches(prompts: Sequence[IntList], responses: Sequence[IntList], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar prompts, all responses to one prompt side by side."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i]), len(responses[i])))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
