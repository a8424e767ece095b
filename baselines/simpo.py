"""SimPO (Meng et al. 2024, arXiv 2405.14734): no reference, log-probabilities per token, and a target margin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from baselines import dpo
from metaapo.method import Declaration, Method, ObjectiveParams

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="SimPO", family="offline", sampled=0.0)


class Params(ObjectiveParams):
    """Configuration keys of SimPO: `gamma`, and `train.beta`, which defaults to 2.5."""

    objective: Literal["simpo"] = "simpo"


def build(params: Params, context: RunContext) -> Method:
    """Build DPO with SimPO's objective."""
    return replace(dpo.build(params, context), objective=params.build_objective())
