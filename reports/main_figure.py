"""The main figure: the paper's first figure beside this experiment's, each on its own vertical axis.

Both panels show the last iteration only, since points of earlier iterations differ in training as well as in
annotations. Methods that were trained at several budgets are drawn as a curve through their capped runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports import paper, svg
from reports.drawing import look_of, mean_and_half_width
from reports.first_screen import metric_title, number
from reports.runs import Results
from reports.score_figures import full_annotations, score_rows
from reports.tables import BENCHMARKS, name_of

PAPERS_METRIC = ("alpacaeval2", "win_rate")

End = tuple[str, float, float, float, float, dict[str, Any]]  # name, x, y, half widths of both, look
Box = tuple[float, float, float, float]  # left, top, right, bottom
COLUMN = 108  # percent of annotations at which names without room beside their points begin
NEAR = 5.0  # percent of annotations: points closer than this are drawn side by side


@dataclass(frozen=True)
class Panel:
    """One panel of the figure.

    Attributes:
        title: what is shown.
        note: where it is from and how many runs.
        chart: the drawing.
    """

    title: str
    note: str
    chart: Markup


def panels(results: Results) -> list[Panel]:
    """The paper's panel and ours; ours alone if the experiment neither trains MetaAPO nor evaluates a released one."""
    metric = _metric(results)
    ours = _ours(results, *metric)
    if ours is None:
        return []
    both = metric == PAPERS_METRIC and {"metaapo", "released_metaapo"} & set(results.experiment.methods)
    return [_papers(), ours] if both else [ours]


def _metric(results: Results) -> tuple[str, str]:
    """The paper's metric if it was scored, else the raw metric of the first benchmark."""
    names = results.experiment.benchmarks
    if PAPERS_METRIC[0] in names:
        return PAPERS_METRIC
    return names[0], BENCHMARKS[names[0]].raw_metric


def _papers() -> Panel:
    ends = {}
    for method, (scores, ratios) in paper.FIGURE_1.items():
        ends[method] = (sum(ratios) / len(ratios), scores[-1])
    chart = _chart(
        "The paper's figure 1",
        "; ".join(f"{name_of(m)} {y:g} % at {x:.0f} % of the annotations" for m, (x, y) in ends.items()),
        (-6, 160),
        (36, 48),
    )
    _labelled(chart, [(name_of(m), x, y, 0.0, 0.0, look_of(m, list(ends))) for m, (x, y) in ends.items()])
    note = "7 to 8 billion parameters, judge GPT-4, one seed, no intervals (read off figure 1, ± 0.3)"
    return Panel("In the paper", note, chart.markup())


def _ours(results: Results, benchmark: str, metric: str) -> Panel | None:
    frame = score_rows(results, benchmark, metric)
    frame = frame[(frame["method"] != "sft") & (frame["iteration"] == results.experiment.iterations)]
    frame = frame[~frame["method"].isin(results.variants)]
    if not len(frame):
        return None
    frame = frame.assign(spent=100 * frame["annotations"] / full_annotations(results))
    methods = list(results.experiment.methods)
    values = frame["value"]
    room = 0.08 * ((values.max() - values.min()) or 1.0)
    right = max(110.0, frame["spent"].max() + 5)
    chart = _chart(
        "The same figure from this experiment's runs",
        "",
        (-6, max(160.0, right + 48)),
        (values.min() - room, values.max() + room),
    )
    ends = []
    for method, group in frame.groupby("method", sort=False):
        look = look_of(method, methods)
        cells = []
        for _, cell in group.groupby("budget"):
            (x, dx), (y, dy) = mean_and_half_width(cell["spent"]), mean_and_half_width(cell["value"])
            cells.append((x, y, dx, dy))
            for spent, value in zip(cell["spent"], cell["value"]):
                chart.point(spent, value, look["color"], size=2.2, kind="faint")
        cells.sort()
        if len(cells) > 1:
            chart.path([cell[:2] for cell in cells], look["color"], width=1.5)
            for x, y, _, _ in cells[:-1]:
                chart.point(x, y, look["color"], look["marker"], size=4)
        ends.append((name_of(method), *cells[-1], look))
    _labelled(chart, ends)
    chart.description = "; ".join(f"{name} {y:.1f} at {x:.0f} % of the annotations" for name, x, y, *_ in ends)
    runs = frame.groupby("method")["seed"].nunique()
    many = "world" if len(results.experiment.world.seeds) > 1 else "seed"
    note = f"{metric_title(benchmark, metric)}, judge {results.experiment.judges[0]}; "
    note += f"{runs.max()} {many}s, faint: each {many}, bars: 95 % intervals" if runs.max() > 1 else "one seed"
    return Panel("Here", note, chart.markup())


def _chart(title: str, description: str, x: tuple[float, float], y: tuple[float, float]) -> svg.Chart:
    chart = svg.Chart(title, description, x, y, width=340, height=220, margin=(22, 6, 36, 34))
    ylabel = "win rate after the last iteration, %"
    chart.axes("annotations, % of Online DPO's", ylabel, xticks=[0, 25, 50, 75, 100])
    return chart


def _labelled(chart: svg.Chart, ends: list[End]) -> None:
    """Points with their intervals, and a label beside each that covers no other label."""
    ends = _beside(chart, ends)
    for _, x, y, dx, dy, look in ends:
        low, high = max(y - dy, chart.y[0]), min(y + dy, chart.y[1])
        if dy:
            chart.line(x, low, x, high, look["color"])
        if dx:
            chart.line(max(x - dx, chart.x[0]), y, min(x + dx, chart.x[1]), y, look["color"])
        chart.point(x, y, look["color"], look["marker"])
    _names(chart, ends)


def _names(chart: svg.Chart, ends: list[End]) -> None:
    """A name beside each point where there is room, else in a column on the right, with a line to its point."""
    points = [(chart.px(x), chart.py(y)) for _, x, y, *_ in ends]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in points]
    left_over = []
    for i, (px, py) in enumerate(points):
        text = _said(ends[i])
        width = _width(text)
        middle = (px - width / 2, px + width / 2)
        sides = (
            (px + 9, py, "start", px + 9, px + 9 + width),
            (px - 9, py, "end", px - 9 - width, px - 9),
            (px, py + 15, "middle", *middle),
            (px, py - 15, "middle", *middle),
        )
        for x, y, anchor, low, high in sides:
            box = (low, y - 7, high, y + 7)
            others = [rect for j, rect in enumerate(taken) if j != i]
            if low >= chart.margin[3] and high <= chart.width + 4 and not any(_overlap(box, rect) for rect in others):
                chart.text(x, y + 4, text, anchor, "name")
                taken.append(box)
                break
        else:
            left_over.append(i)
    widest = max((_width(_said(ends[i])) for i in left_over), default=0)
    column = min(chart.px(COLUMN), chart.width - widest)
    heights = svg.apart([points[i][1] for i in left_over], 14, chart.margin[0] + 6, chart.height - chart.margin[2] - 4)
    free = [_clear(height, column, taken) for height in heights]
    for i, height in zip(left_over, svg.apart(free, 14, chart.margin[0] - 6, chart.height - chart.margin[2] - 4)):
        chart.marks.append(
            f'<path d="M{points[i][0]} {points[i][1]}L{column - 3} {height}" fill="none" class="leader" '
            f'stroke="{svg.ink(ends[i][-1]["color"])}"/>'
        )
        chart.text(column, height + 4, _said(ends[i]), "start", "name")


def _said(end: End) -> str:
    return f"{end[0]} {number(end[2], signed=False)}"


def _width(text: str) -> float:
    return 1.15 * svg.CHAR * 12 * len(text)  # names are bold


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _clear(height: float, column: float, taken: list[Box]) -> float:
    """A height in the column at which a name covers nothing, the nearest one above or below."""
    steps = [sign * step for step in range(0, 200, 2) for sign in (1, -1)]
    clear = (
        s for s in steps if not any(_overlap((column, height + s - 7, math.inf, height + s + 7), r) for r in taken)
    )
    return height + next(clear, 0)


def _beside(chart: svg.Chart, ends: list[End]) -> list[End]:
    """Points with nearly the same annotations and overlapping intervals, moved apart so that none hides another."""
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    places = svg.apart([ends[i][1] for i in order], NEAR, *chart.x)
    moved = list(ends)
    for i, place in zip(order, places):
        name, x, *rest = ends[i]
        moved[i] = (name, place, *rest)
    return moved
