"""What all figures share: the style sheet, each method's look, and how figures are stored and saved.

A method has the same colour and marker in every figure. The same numbers give the same file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval import stats
from metaapo.data import write_bytes, write_text
from metaapo.method import known_declarations
from reports import inline, svg
from reports.runs import KEYS, Results

STYLE = Path(__file__).with_name("style.mplstyle")
SFT_LOOK = ("#444444", "x")
# For methods that declare no look; the others use the colours of Okabe & Ito (2008), except yellow (invisible on
# white).
SPARE_COLORS = ("#7f3b08", "#542788", "#1b7837", "#4d4d4d", "#b35806", "#2166ac", "#8c510a", "#762a83")
LABEL_SIZE = 7.5  # points of a curve's name
LABEL_HEIGHT = 9.5  # points from one name to the next
SPARE_MARKERS = ("<", ">", "p", "h", "X", "*", "d", "8")


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        name: stem of its files.
        section: where the report shows it: results, meta, training or costs.
        title: a few words.
        caption: what is shown, n, seeds, judge, intervals.
        alt: alternative text for readers who cannot see the figure.
        figure: the drawing.
        data: the plotted data, one row per run and point, saved with the figure so that every point can be traced to
            its run.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame

    def _repr_png_(self) -> bytes:
        """Rich display in notebooks."""
        return self.png()

    def png(self) -> bytes:
        """The figure as PNG, without a date, so that the same numbers give the same file."""
        return self._render("png", {"Software": None})

    def pdf(self) -> bytes:
        """The figure as PDF, without a date."""
        return self._render("pdf", {"CreationDate": None, "Producer": None, "Creator": None})

    def _render(self, kind: str, metadata: dict[str, None]) -> bytes:
        with plt.style.context(STYLE):
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format=kind, metadata=metadata)
            return buffer.getvalue()


def look_of(method: str, methods: Sequence[str]) -> dict[str, str]:
    """Colour and marker of a method, the same in every figure of an experiment."""
    declared = {name: declaration.look for name, declaration in known_declarations().items() if declaration.look} | {
        "sft": SFT_LOOK
    }
    if method in declared:
        color, marker = declared[method]
    else:
        number = [name for name in methods if name not in declared].index(method)
        color, marker = SPARE_COLORS[number % len(SPARE_COLORS)], SPARE_MARKERS[number % len(SPARE_MARKERS)]
    return {"color": color, "marker": marker}


def offset(results: Results, method: str) -> float:
    """Shift along the iteration axis, so that methods with equal values do not hide each other."""
    methods = list(results.experiment.methods)
    return 0.3 * ((methods.index(method) + 0.5) / len(methods) - 0.5)


def mean_and_half_width(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t-interval; 0 for a single seed."""
    estimate = stats.mean_over_seeds(np.asarray(list(values), float))
    return estimate.value, estimate.high - estimate.value if estimate.stderr is not None else 0.0


def shades(n: int) -> list[tuple[float, float, float, float]]:
    """Dark to light colours for the start and n iterations, still ordered in greyscale and for colour-blind readers."""
    return [plt.get_cmap("cividis")(x) for x in np.linspace(0.0, 0.85, n + 1)]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, Mapping[str, str]]]) -> None:
    """Name curves at the right of the axes, in the order of their ends, so that no legend must be decoded.

    Args:
        axes: with its final limits.
        ends: (x, y, name, look) of each curve's last point; a thin line leads from it to its name.
    """
    height = axes.get_position().height * axes.figure.get_size_inches()[1] * 72
    data_to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(np.clip(data_to_axes.transform((x, y))[1], 0, 1)) for x, y, *_ in ends]
    found = svg.apart(wanted, LABEL_HEIGHT / height, 0, 1)
    for (x, y, name, look), level in zip(ends, found):
        line = {"arrowstyle": "-", "color": look["color"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x, y), (1.035, level), textcoords="axes fraction", arrowprops=line, annotation_clip=False)
        mark = {"color": look["color"], "marker": look.get("marker", ""), "markersize": 4}
        axes.plot(1.035, level, transform=axes.transAxes, clip_on=False, **mark)
        axes.text(1.06, level, name, transform=axes.transAxes, fontsize=LABEL_SIZE, va="center")


def panel_height(labels: int, least: float = 2.2) -> float:
    """Inches of a panel that has room for that many labels at its side."""
    return max(least, (labels + 4) * LABEL_HEIGHT / 72)


def draw(results: Results, figures: Sequence[Callable[[Results], Drawn | None]]) -> list[Drawn]:
    """Draw all figures for which the experiment has data."""
    with plt.style.context(STYLE):
        made = [drawn for drawn in (figure(results) for figure in figures) if drawn is not None]
    for drawn in made:
        plt.close(drawn.figure)  # removes it from pyplot; it can still be saved
    return made


def save(drawn: Drawn, folder: Path) -> None:
    """Write NAME.png, NAME.pdf and NAME.data.csv into `folder`."""
    png = drawn.png()
    drawn.figure.set_layout_engine("none")  # keeps the layout just made for the PNG
    write_bytes(folder / f"{drawn.name}.png", png)
    write_bytes(folder / f"{drawn.name}.pdf", drawn.pdf())
    write_text(folder / f"{drawn.name}.data.csv", _with_runs(drawn.data).to_csv(index=False, lineterminator="\n"))


@dataclass(frozen=True)
class Saved:
    """A figure that was saved, as the page needs it: attributes as in `Drawn`, and its panels."""

    name: str
    section: str
    title: str
    caption: str
    alt: str
    panels: list[inline.Panel]


FigureOf = Callable[[Results], Drawn | None]


def save_all(results: Results, figures: Sequence[FigureOf], folder: Path) -> Callable[[], list[Saved]]:
    """Draw and save figures in other processes, while this one goes on.

    Returns:
        A function that waits for them and returns those for which the experiment has data, in order.
    """
    # forked, since a child then has what was read and every font without reading it again
    pool = get_context("fork").Pool(len(os.sched_getaffinity(0)), _inherit, (results, figures, folder))
    saved = pool.map_async(_draw_inherited, range(len(figures)), chunksize=1)
    pool.close()
    return lambda: [figure for figure in saved.get() if figure is not None]


_inherited: list[Any] = []


def _inherit(*given: Any) -> None:
    _inherited[:] = given


def _draw_inherited(number: int) -> Saved | None:
    results, figures, folder = _inherited
    return next((saved(drawn, folder) for drawn in draw(results, (figures[number],))), None)


def saved(drawn: Drawn, folder: Path) -> Saved:
    """Save a figure with its data."""
    save(drawn, folder)
    with plt.style.context(STYLE):
        panels = inline.panels(drawn.figure, drawn.name, drawn.alt)
    return Saved(drawn.name, drawn.section, drawn.title, drawn.caption, drawn.alt, panels)


def _with_runs(data: pd.DataFrame) -> pd.DataFrame:
    """Replace the columns that identify a run by its id, if the rows belong to runs."""
    if not set(KEYS) <= set(data):
        return data
    keys = zip(data["method"], data["budget"], data["seed"])
    runs = [f"{method}/budget{budget}/seed{seed}" for method, budget, seed in keys]
    return data.drop(columns=KEYS).assign(run=runs)
