"""ADPO (Ji et al. 2024, arXiv 2402.09401), in the hybrid setting: annotate only where the policy is not sure.

Active queries: a prompt is annotated (K responses sampled and ranked) where the policy's own margin between the
responses of its offline pair is small, |beta * Delta| <= threshold. Offline and online pairs mix in fixed parts; a sure
prompt has its offline part only. Nothing here is learned: the hard, static counterpart of MetaAPO. (The paper labels
sure pairs with the policy's own preference; here their labels are given, as to every other method.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from metaapo.config import MethodConfig
from metaapo.method import Declaration, Method, SelectionRequest
from metaapo.selection import Floats, Selection, by_priority

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="ADPO")  # at most every prompt: how many it is sure of, nobody knows beforehand


class Params(MethodConfig):
    """ADPO's keys in the configuration."""

    threshold: float = Field(0.5, gt=0, description="sure above this |beta * Delta| (gamma in the paper)")
    mix: float = Field(0.5, ge=0, le=1, description="weight of offline pairs; 1 - mix is that of online ones")


def margins(scores: Floats) -> Floats:
    """beta * Delta of pairs from their scores log sigmoid(beta * Delta)."""
    return scores - np.log(-np.expm1(np.minimum(scores, -1e-12)))


def build(params: Params, context: RunContext) -> Method:
    """Sample where the margin is within the threshold; over budget, the smallest margins first."""

    def unsure(request: SelectionRequest) -> Selection:
        sureness = np.abs(margins(request.scores.astype(float)))
        return by_priority(-sureness, -params.threshold, request.budget, request.rng)

    return Method(select=unsure, weigh=lambda pairs: params.mix)
