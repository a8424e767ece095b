"""Objectives: pure functions of sequence log-probabilities, one a method, each with its equation.

Every function takes the log-probabilities of a batch of preference pairs and returns one loss a pair, float32
(batch,), so that the loop can weigh them. The *preference score* of a pair is minus its loss.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    @property
    def margin(self) -> Tensor:
        """Delta(x, y_w, y_l), (batch,): how much more than the reference the policy prefers y_w to y_l."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)


def dpo(pairs: PairLogps, beta: float) -> Tensor:
    """Direct preference optimization: L = -log sigmoid(beta * Delta) (Rafailov et al. 2023, eq. 7)."""
    return -logsigmoid(beta * pairs.margin)


OBJECTIVES = {"dpo": dpo}
