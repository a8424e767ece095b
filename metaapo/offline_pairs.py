"""The offline pairs as a method sees them: scores and gaps, one number per pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OfflinePairs:
    """What a method sees of offline pairs: those of an iteration for selection, or of a batch for weighting.

    Attributes:
        scores: float32 (n,), preference score under the current policy (minus the loss), detached.
        length_gaps: float32 (n,), (|y_w| - |y_l|) / (|y_w| + |y_l|) in tokens, in (-1, 1).
        reward_gaps: float32 (n,), reward of y_w minus that of y_l; 0 unless the method sets `rates_offline`.
    """

    scores: Tensor
    length_gaps: Tensor
    reward_gaps: Tensor
