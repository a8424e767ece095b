"""DPO (Rafailov et al. 2023, arXiv 2305.18290): the offline pairs alone, in the shared loop's iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaapo import selection
from metaapo.config import MethodConfig
from metaapo.method import Method, OfflinePairs

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.run import RunContext


def offline_only(pairs: OfflinePairs) -> Tensor:
    """w = 1: the loss of a prompt is its offline pair's."""
    return pairs.scores.new_ones(pairs.scores.shape)


def build(params: MethodConfig, context: RunContext) -> Method:
    """No prompt is sampled; every offline pair weighs 1."""
    return Method(select=lambda request: selection.none(len(request.scores)), weigh=offline_only)
