"""Random mixing: a fixed fraction of the prompts, drawn at random, gets online pairs; both losses weigh the same.

The fraction is the run's `budget`. Trained at several budgets it measures what annotations are worth where nothing is
selected (the dose-response of the assay), without reference to any other method's runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaapo import selection
from metaapo.method import Declaration, Method, ObjectiveParams

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="Random mixing", role="control", dose_response=True, look=("#999933", "X"))


class Params(ObjectiveParams):
    """Configuration keys of random mixing."""


def build(params: Params, context: RunContext) -> Method:
    """Sample exactly round(budget * n) prompts, drawn uniformly; every prompt keeps its offline pair."""
    return Method(
        select=lambda request: selection.random_fraction(len(request.scores), request.budget, request.rng),
        weigh=lambda pairs: 0.5,
        objective=params.build_objective(),
        reads_scores=False,
    )
