"""Log-probabilities of preference pairs: without gradients for an iteration, with gradients for a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from metaapo.loop.processes import Processes, together
from metaapo.loop.prompts import PreferencePair, Prompt
from metaapo.losses import PairLogps
from metaapo.models.logps import IntList, all_sequence_logps, collate, sequence_logps

Logps = Callable[[nn.Module, Sequence[IntList], Sequence[IntList]], Tensor]


class Scorer:
    """Computes log-probabilities without gradients, dividing the work between a job's processes."""

    def __init__(self, processes: Processes, pad_id: int, batch_size: int, batch_tokens: int = 0) -> None:
        self.processes, self.pad_id = processes, pad_id
        self.batch_size, self.batch_tokens = batch_size, batch_tokens

    def logps(self, model: nn.Module, prompts: Sequence[IntList], responses: Sequence[IntList]) -> Tensor:
        """Log-probabilities of responses, float32 (n,), on the CPU; all processes must call it with the same arguments.

        Args:
            model: a policy.
            prompts: token ids.
            responses: token ids, in the same order.
        """
        items = list(zip(prompts, responses, strict=True))
        if not items:
            return torch.zeros(0)
        weights = [len(prompt) + len(response) for prompt, response in items]
        return torch.tensor(
            self.processes.share(
                items,
                lambda share: self.logps_here(model, *zip(*share, strict=True)).tolist(),
                parts=lambda n: together([tuple(prompt) for prompt, _ in items], weights, n),
            )
        )

    def logps_here(self, model: nn.Module, prompts: Sequence[IntList], responses: Sequence[IntList]) -> Tensor:
        """Like `logps`, but for this process only."""
        with self.processes.arithmetic():
            sizes = (self.pad_id, self.batch_size, self.batch_tokens)
            return all_sequence_logps(model, prompts, responses, *sizes).cpu()


def reference_column(pairs: Sequence[PreferencePair], name: str, device: torch.device) -> Tensor:
    """The reference's log-probabilities of one side of the pairs ("chosen", "rejected" or "greedy"), float32 (n,)."""
    return torch.tensor([getattr(pair, f"reference_{name}") for pair in pairs], dtype=torch.float32, device=device)


def pair_logps(pairs: Sequence[PreferencePair], chosen: Tensor, rejected: Tensor) -> PairLogps:
    """Combine the policy's log-probabilities, (n,), with the pairs' reference log-probabilities and lengths."""

    def lengths(responses: list[IntList]) -> Tensor:
        return torch.tensor([float(len(response)) for response in responses], device=chosen.device)

    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_column(pairs, "chosen", chosen.device),
        reference_rejected=reference_column(pairs, "rejected", chosen.device),
        chosen_length=lengths([pair.chosen for pair in pairs]),
        rejected_length=lengths([pair.rejected for pair in pairs]),
    )


def forward_pairs(
    model: nn.Module,
    offline: Sequence[Prompt],
    online: Sequence[Prompt],
    pad_id: int,
    with_greedy: bool = False,
    arithmetic: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[PairLogps | None, PairLogps | None]:
    """Log-probabilities of offline and of online pairs, with gradients, from one forward pass over all sequences.

    Args:
        model: the policy.
        offline: prompts whose offline pairs to evaluate.
        online: prompts whose online pairs to evaluate.
        pad_id: the padding token.
        with_greedy: also evaluate the online prompts' greedy responses.
        arithmetic: context manager for the forward pass, such as bf16 autocast.

    Returns:
        log-probabilities of the offline and of the online pairs, in the order of the prompts; None if there are none.
    """
    prompts = [*offline, *online]
    pairs = [*(prompt.offline for prompt in offline), *(prompt.online for prompt in online)]
    explored = list(online) if with_greedy else []
    ids = [prompt.ids for prompt in [*prompts, *prompts, *explored]]
    responses = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    responses += [prompt.online.greedy for prompt in explored]
    with arithmetic():
        logps = sequence_logps(model, collate(ids, responses, pad_id))
    n, m = len(offline), len(pairs)
    chosen, rejected, greedy = logps[:m], logps[m : 2 * m], logps[2 * m :]
    of_offline, of_online = (
        pair_logps(pairs[rows], chosen[rows], rejected[rows]) if pairs[rows] else None
        for rows in (slice(n), slice(n, m))
    )
    if explored:
        reference = reference_column(pairs[n:], "greedy", logps.device)
        of_online = replace(of_online, greedy=greedy, reference_greedy=reference)
    return of_offline, of_online


def mismatched_logps(
    logps: Logps, policy: nn.Module, reference: nn.Module, prompts: Sequence[IntList], pairs: Sequence[PreferencePair]
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, (2n,), of each prompt's *previous* prompt's two responses, for `step.estimate_kl`.

    Args:
        logps: function that computes log-probabilities, such as `Scorer.logps`.
        policy: the model whose divergence is estimated.
        reference: the model it is measured against.
        prompts: n prompts as token ids.
        pairs: one pair per prompt; a single pair has no other prompt and gives an empty result, (0,).

    Returns:
        log-probabilities under the policy and under the reference.
    """
    if len(pairs) < 2:
        return torch.zeros(0), torch.zeros(0)
    ids = [*prompts, *prompts]
    previous = [*pairs[-1:], *pairs[:-1]]
    responses = [*(pair.chosen for pair in previous), *(pair.rejected for pair in previous)]
    return logps(policy, ids, responses), logps(reference, ids, responses)
