"""KTO (Ethayarajh et al. 2024, arXiv 2402.01306): each response is desirable or not, measured against a KL baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from baselines import dpo
from metaapo.method import Declaration, Method, ObjectiveParams

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="KTO", family="offline", sampled=0.0)


class Params(ObjectiveParams):
    """Configuration keys of KTO: `desirable_weight`, `undesirable_weight`, `train.beta`."""

    objective: Literal["kto"] = "kto"


def build(params: Params, context: RunContext) -> Method:
    """Build DPO with KTO's objective."""
    return replace(dpo.build(params, context), objective=params.build_objective())
