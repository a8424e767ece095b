"""Objectives: pure functions of sequence log-probabilities, each with its equation.

Every function takes the log-probabilities of a batch of preference pairs and returns one loss per pair, float32
(batch,), so that the loop can weight them. The *preference score* of a pair is minus its loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities of preference pairs, each float32 (batch,), natural log, summed over response tokens.

    Attributes:
        chosen: log pi(y_w given x) under the policy.
        rejected: log pi(y_l given x) under the policy.
        reference_chosen: the same under the frozen reference.
        reference_rejected: the same under the frozen reference.
        chosen_length: tokens of y_w, EOS included.
        rejected_length: tokens of y_l, EOS included.
        greedy: log pi(y_0 given x) of the prompt's greedy response, if a method's `bonus` needs it.
        reference_greedy: the same under the frozen reference.
        kl: float32 (), estimate of KL(policy || reference) in nats, >= 0, if the objective needs it.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    greedy: Tensor | None = None
    reference_greedy: Tensor | None = None
    kl: Tensor | None = None

    @property
    def margin(self) -> Tensor:
        """Delta(x, y_w, y_l), (batch,): how much more than the reference the policy prefers y_w to y_l."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)


def dpo(pairs: PairLogps, beta: float) -> Tensor:
    """Direct preference optimization: L = -log sigmoid(beta * Delta) (Rafailov et al. 2023, eq. 7)."""
    return -logsigmoid(beta * pairs.margin)


def ipo(pairs: PairLogps, beta: float) -> Tensor:
    """Identity preference optimization: L = (Delta per token - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17).

    The log-ratios are averaged over the tokens of each response. The equation leaves this open, but IPO's authors
    confirmed it to the maintainers of TRL: with sums, the target would matter less the longer the responses are.
    """
    chosen = (pairs.chosen - pairs.reference_chosen) / pairs.chosen_length
    rejected = (pairs.rejected - pairs.reference_rejected) / pairs.rejected_length
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo(pairs: PairLogps, beta: float, gamma: float = 0.6) -> Tensor:
    """Simple preference optimization: L = -log sigmoid(beta * (avg log pi(y_w) - avg log pi(y_l)) - gamma).

    Uses no reference (Meng et al. 2024, eq. 6).

    Args:
        pairs: the pairs; their reference columns are ignored.
        beta: scale of the log-probability per token, 2 to 10 in the paper.
        gamma: target margin, >= 0, in the units of beta * log-probability per token.
    """
    chosen, rejected = pairs.chosen / pairs.chosen_length, pairs.rejected / pairs.rejected_length
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def kto(pairs: PairLogps, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Tensor:
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, section 4), averaged over a pair's two responses.

    L = [desirable_weight * (1 - sigmoid(beta * (r_w - z))) + undesirable_weight * (1 - sigmoid(beta * (z - r_l)))] / 2
    with r = log pi(y) - log ref(y) and z = `pairs.kl`, which is detached.
    """
    chosen = pairs.chosen - pairs.reference_chosen
    rejected = pairs.rejected - pairs.reference_rejected
    desirable = desirable_weight * (1 - torch.sigmoid(beta * (chosen - pairs.kl)))
    undesirable = undesirable_weight * (1 - torch.sigmoid(beta * (pairs.kl - rejected)))
    return (desirable + undesirable) / 2


@dataclass(frozen=True)
class Objective:
    """The loss of a pair.

    Attributes:
        loss: one loss per pair, (batch,), computed from its log-probabilities and beta.
        uses_kl: whether the loss uses `PairLogps.kl`; estimating it takes two more sequences per pair.
    """

    loss: Callable[[PairLogps, float], Tensor] = dpo
    uses_kl: bool = False
