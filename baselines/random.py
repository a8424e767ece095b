"""The random-selection control: as many prompts as MetaAPO sampled, drawn at random, with both losses weighted equally.

Without it, "MetaAPO is better at 58 % of the annotations" cannot be told from "58 % of the annotations is enough".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from metaapo import selection
from metaapo.method import Declaration, Method, ObjectiveParams, SelectionRequest

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(
    title="Random selection",
    role="control",
    sampled=0.6,  # as MetaAPO
    matched_random=True,
    look=("#CC79A7", "D"),
)


class Params(ObjectiveParams):
    """Configuration keys of the control."""

    match: str = Field("metaapo", description="method whose realised budget is matched, seed by seed")

    def needs(self) -> list[str]:
        """The matched method's run must be finished first."""
        return [self.match]


def build(params: Params, context: RunContext) -> Method:
    """Sample the same fraction of each iteration as the matched run, drawn uniformly."""
    fractions = [summary["sampled"] / summary["prompts"] for summary in context.summaries_of(params.match)]

    def select(request: SelectionRequest) -> selection.Selection:
        return selection.random_fraction(len(request.scores), fractions[request.iteration - 1], request.rng)

    return Method(select=select, weigh=lambda pairs: 0.5, objective=params.build_objective(), reads_scores=False)
