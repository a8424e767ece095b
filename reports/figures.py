"""All figures of the report, in order; each is drawn only if the experiment has the data for it.

A figure is a function of `Results` that returns a `Drawn`, whose caption states n, seeds and judge, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reports import drawing
from reports.drawing import Drawn, Saved
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
AFTER_CLAIMS = (contrasts, specifications)  # they read claims.json and spec_curve.json
BEFORE_CLAIMS = tuple(figure for figure in FIGURES if figure not in AFTER_CLAIMS)


def in_order(saved: Sequence[Saved]) -> list[Saved]:
    """Figures in the order of FIGURES, whose functions have the figures' names."""
    names = [figure.__name__ for figure in FIGURES]
    return sorted(saved, key=lambda figure: names.index(figure.name))


def draw(results: Results, figures: Sequence[Callable[[Results], Drawn | None]] = FIGURES) -> list[Drawn]:
    """Draw the figures for which the experiment has data."""
    return drawing.draw(results, figures)
