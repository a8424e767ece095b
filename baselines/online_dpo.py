"""Online DPO (iterative): sample every prompt and train on the annotator's best and worst of K responses only."""

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
    """Configuration keys of online DPO."""


def build(params: Params, context: RunContext) -> Method:
    """Sample all prompts (or a random subset if the budget is below 1) and train on online pairs only."""
    return Method(
        select=lambda request: selection.random_fraction(len(request.scores), request.budget, request.rng),
        weigh=lambda pairs: 0.0,
        objective=params.build_objective(),
        uses_offline=False,
        unsampled="dropped",
    )
