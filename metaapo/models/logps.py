"""Sequence log-probabilities, the basis of every loss.

Responses to one prompt share that prompt's computation, and short sequences share a row: a row holds *trees*, each a
prompt followed by its responses, and an attention mask lets each token see only its own prompt and response. Up to
rounding, the results equal those of one forward pass per sequence, at a half to a third of a padded batch's cost.
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
BRANCHES = 1 << 30  # added to branch numbers to tell them from trees'; -1 is added to for prompts, and equals no key


@dataclass(frozen=True)
class SequenceBatch:
    """n responses to prompts, packed into rows. The m response tokens (EOS included) keep the given order.

    Attributes:
        input_ids: int64 (rows, width).
        position_ids: int64 (rows, width): a token's position in its own prompt and response.
        trees: int32 (rows, width): the tree of each token; -1: padding.
        branches: int32 (rows, width): the response of each token; PROMPT: a prompt's.
        targets: int64 (m,): the response tokens.
        positions: int64 (m,): index of each response token in the flattened rows.
        sources: int64 (m,): index of the token whose output predicts it, the previous one in its sequence.
        owners: int64 (m,): the response it belongs to, 0 to n - 1.
        steps: int64 (m,): its position in the response, from 0.
    """

    input_ids: Tensor
    position_ids: Tensor
    trees: Tensor
    branches: Tensor
    targets: Tensor
    positions: Tensor
    sources: Tensor
    owners: Tensor
    steps: Tensor

    def attention_mask(self, device: torch.device) -> Tensor:
        """Which tokens (last axis) a token sees, bool (rows, 1, width, width), made on the device that uses it.

        A token sees the earlier tokens of its tree's prompt and of its own response; padding sees padding.
        """
        trees, branches = self.trees.to(device), self.branches.to(device)
        keys = torch.where(branches == PROMPT, trees, branches + BRANCHES)[:, None, :]  # no tree has a branch's number
        mask = keys == trees[:, :, None]
        mask |= keys == (branches + BRANCHES)[:, :, None]
        return mask.tril_()[:, None]

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
        """Arrange values of the response tokens, (m,), as (n, longest response), padded with 0 on the right."""
        shape = (int(self.owners[-1]) + 1, int(self.steps.max()) + 1)
        owners, steps = self.owners.to(values.device), self.steps.to(values.device)
        return values.new_zeros(shape).index_put((owners, steps), values)


def collate(prompts: Sequence[IntList], responses: Sequence[IntList], pad_id: int) -> SequenceBatch:
    """Pack prompts and responses (token ids) into one batch; equal prompts are stored once.

    Args:
        prompts: the prompt of each response.
        responses: same order.
        pad_id: fills the ends of the rows.

    Raises:
        DataError: a prompt or a response is empty.
    """
    if any(not prompt for prompt in prompts) or any(not response for response in responses):
        raise DataError("empty prompt or response: every sequence needs at least one token of each (EOS counts)")
    trees: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        trees.setdefault(tuple(prompt), []).append(i)
    sizes = [len(prompt) + sum(len(responses[i]) for i in members) for prompt, members in trees.items()]
    rows = _fill_rows(sizes)
    shape = (len(rows), max(sizes))
    ids, position_ids = np.full(shape, pad_id), np.zeros(shape, np.int64)
    tree_of, branch_of = np.full(shape, -1), np.full(shape, PROMPT)
    starts, sources = np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.int64)
    order = list(trees.items())
    for row, members in enumerate(rows):
        end = 0
        for tree in members:
            prompt, branches = order[tree]
            start, end = end, end + len(prompt)
            prompt_end = end
            ids[row, start:end], position_ids[row, start:end] = prompt, np.arange(len(prompt))
            for i in branches:
                begin, end = end, end + len(responses[i])
                ids[row, begin:end], branch_of[row, begin:end] = responses[i], i
                position_ids[row, begin:end] = len(prompt) + np.arange(len(responses[i]))
                starts[i], sources[i] = row * shape[1] + begin, row * shape[1] + prompt_end - 1
            tree_of[row, start:end] = tree
    lengths = [len(response) for response in responses]
    owners = np.repeat(np.arange(len(responses)), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    positions = starts[owners] + steps
    columns = (ids.ravel()[positions], positions, np.where(steps > 0, positions - 1, sources[owners]), owners, steps)
    cells = (ids, position_ids, tree_of.astype(np.int32), branch_of.astype(np.int32))
    return SequenceBatch(*map(torch.from_numpy, (*cells, *columns)))


def _fill_rows(sizes: list[int]) -> list[list[int]]:
    """Pack trees into rows no longer than the longest tree (first fit, longest first)."""
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


def hidden_states(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Last hidden states of a language or reward model, (rows * width, hidden size)."""
    device = next(model.parameters()).device
    output = model.base_model(
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask(device),
        position_ids=batch.position_ids.to(device),
        use_cache=False,
    )
    return output.last_hidden_state.flatten(0, 1)


class LogpsModule(nn.Module):
    """A policy whose forward pass is `_flat_logps`: modules wrapped for several processes must be called directly."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self._no_split_modules = policy._no_split_modules  # FSDP shards the weights layer by layer

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Log-probability of each response token, float32 (m,)."""
        return _flat_logps(self.policy, batch)


def _flat_logps(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-probability of each response token, float32 (m,); the output layer is only applied at those positions."""
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
    batch_tokens: int = 0,
) -> Tensor:
    """Log-probabilities of many responses, batched by length, without gradients.

    Args:
        model: the causal language model.
        prompts: token ids of each response's prompt; equal ones are computed once per batch.
        responses: token ids of each response, same order.
        pad_id: token id used for padding.
        batch_size: sequences per forward pass.
        batch_tokens: tokens per forward pass, unless a single sequence has more; 0: any number.

    Returns:
        float32 (n,), on the CPU, in the order given.
    """
    logps = torch.zeros(len(prompts))
    for rows in length_batches(prompts, responses, batch_size, batch_tokens):
        batch = collate([prompts[i] for i in rows], [responses[i] for i in rows], pad_id)
        logps[rows] = sequence_logps(model, batch).cpu()
    return logps


def length_batches(
    prompts: Sequence[IntList], responses: Sequence[IntList], batch_size: int, batch_tokens: int = 0
) -> list[list[int]]:
    """Group indices into batches of similar prompts, keeping the responses to one prompt together.

    Args:
        prompts: token ids of each response's prompt.
        responses: token ids, in the same order.
        batch_size: most sequences of a batch.
        batch_tokens: most tokens of a batch, where a prompt counts once; 0: any number.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i]), len(responses[i])))
    if not batch_tokens:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches: list[list[int]] = []
    tokens, before = 0, None
    for i in order:
        prompt = tuple(prompts[i])
        added = len(responses[i]) + (0 if prompt == before else len(prompt))
        if not batches or len(batches[-1]) == batch_size or tokens + added > batch_tokens:
            batches.append([])
            tokens, added = 0, len(responses[i]) + len(prompt)
        batches[-1].append(i)
        tokens, before = tokens + added, prompt
    return batches
