"""All figures of the report, in order; each is drawn only if the experiment has the data for it.

A figure is a function of `Results` that returns a `Drawn`, whose caption states n, seeds and judge, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reports import drawing
from reports.drawing import Drawn
from reports.runs import Results
from reports.score_figures import ablations, budget, contrasts, curves, judges, sweep
from reports.spec_curve import specifications
from reports.training_figures import (
    costs,
    drift,
    meta_map,
    overoptimisation,
    reinforcement,
    sampling_rate,
    training,
)

FIGURES: tuple[Callable[[Results], Drawn | None], ...] = (
    *(budget, curves, contrasts, sweep, ablations, judges, specifications),
    *(meta_map, sampling_rate),
    *(training, drift, overoptimisation, reinforcement),
    costs,
)


def draw(results: Results, figures: Sequence[Callable[[Results], Drawn | None]] = FIGURES) -> list[Drawn]:
    """Draw the figures for which the experiment has data."""
    return drawing.draw(results, figures)
