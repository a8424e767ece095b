"""Online DPO (iterative): every prompt is sampled, the annotator's best and worst of K make the only pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaapo import selection
from metaapo.method import Declaration, Method, ObjectiveParams

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(
    title="Online DPO",
    family="online",
    required=True,
    full_budget=True,
    shows_signal=True,
    look=("#0072B2", "s"),
)


class Params(ObjectiveParams):
    """Online DPO's keys in the configuration."""


def build(params: Params, context: RunContext) -> Method:
    """All prompts (a budget below 1: a random subset of them), online pairs only."""
    return Method(
        select=lambda request: selection.random_fraction(len(request.scores), request.budget, request.rng),
        weigh=lambda pairs: 0.0,
        objective=params.build_objective(),
        uses_offline=False,
        keep_unsampled=False,
    )
