"""An oracle for the assay, not a method: it reads the gold reward, which no method may see.

`choose: prompts` samples and annotates every prompt, then trains on the online pairs of those that gain most by gold,
as many as the budget allows; the others train on their offline pair alone. What it wins over random mixing
(baselines/mixing.py) at the same budget is about the most that any selector of prompts could show in a world.

`choose: weights` samples the prompts that random mixing samples with the same seed and budget, but gives each prompt's
whole weight to the pair that is better by gold: about the most that any weighting could show.

Both need a world that a program can grade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from metaapo import selection
from metaapo.method import Annotations, Declaration, Method, ObjectiveParams, Revision, SelectionRequest
from metaapo.selection import Floats, Selection

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="Oracle", role="control", reads_gold=True, look=("#000000", "*"))


class Params(ObjectiveParams):
    """Configuration keys of the oracle."""

    choose: Literal["prompts", "weights"] = Field(
        "prompts", description="what the gold reward decides: which prompts train online, or the weight of each pair"
    )
    gain: Literal["margin", "chosen"] = Field(
        "margin",
        description="how much better an online pair is than the offline pair, in gold reward: its margin (chosen less "
        "rejected) less the offline margin; or its chosen response less the offline one",
    )


def build(params: Params, context: RunContext) -> Method:
    """Random mixing, corrected by the gold reward after annotation."""

    from metaapo.worlds.gain import gold_gain

    def select(request: SelectionRequest) -> Selection:
        fraction = 1.0 if params.choose == "prompts" else request.budget
        return selection.random_fraction(len(request.scores), fraction, request.rng)

    def revise(annotations: Annotations) -> Revision:
        gains = np.array([gold_gain(prompt, params.gain) for prompt in annotations.prompts])
        if params.choose == "weights":
            return weigh_by_gain(gains)
        return Revision(keep=largest(gains, round(annotations.budget * len(gains)), annotations.rng))

    objective = params.build_objective()
    return Method(select=select, weigh=lambda pairs: 0.5, objective=objective, reads_scores=False, revise=revise)


def largest(gains: Floats, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mark the `count` prompts with the largest gains, bool (n,); ties are broken at random, -inf is never marked."""
    order = np.lexsort((rng.permutation(len(gains)), -gains))
    marked = np.zeros(len(gains), bool)
    marked[order[:count]] = True
    return marked & np.isfinite(gains)


def weigh_by_gain(gains: Floats) -> Revision:
    """Keep every pair; where there is an online pair, the better pair has all the weight, equal ones half each."""
    weights = np.where(np.isfinite(gains), 0.5 - 0.5 * np.sign(gains), np.nan)
    return Revision(keep=np.ones(len(gains), bool), weights=weights)
