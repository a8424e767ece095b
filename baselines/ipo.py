"""IPO (Azar et al. 2023, arXiv 2310.12036): DPO with a squared loss, which keeps the margins bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from baselines import dpo
from metaapo.method import Declaration, Method, ObjectiveParams

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="IPO", family="offline", sampled=0.0)


class Params(ObjectiveParams):
    """Configuration keys of IPO; `train.beta` is the paper's tau: the target is 1 / (2 beta) nats per token."""

    objective: Literal["ipo"] = "ipo"


def build(params: Params, context: RunContext) -> Method:
    """Build DPO with IPO's objective."""
    return replace(dpo.build(params, context), objective=params.build_objective())
