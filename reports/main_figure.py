"""The main figure: the paper's first figure beside this experiment's, each on its own vertical axis.

Both panels show the last iteration only, since points of earlier iterations differ in training as well as in
annotations. Methods that were trained at several budgets are drawn as a curve through their capped runs.
"""

from __future__ import annotations

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
    top, _, bottom, _ = chart.margin
    texts = [f"{name} {number(y, signed=False)}" for name, _, y, *_ in ends]
    left = [_to_the_left(chart, ends, i, text) for i, text in enumerate(texts)]
    for side in (False, True):
        of = [i for i in range(len(ends)) if left[i] == side]
        heights = svg.apart([chart.py(ends[i][2]) for i in of], 14, top + 6, chart.height - bottom - 4)
        for i, height in zip(of, heights):
            chart.text(
                chart.px(ends[i][1]) + (-9 if side else 9), height + 4, texts[i], "end" if side else "start", "name"
            )


def _to_the_left(chart: svg.Chart, ends: list[End], i: int, text: str) -> bool:
    """Whether a label stands to the left of its point, since on the right it would cover another or leave the chart."""
    x, y = chart.px(ends[i][1]), chart.py(ends[i][2])
    width = 9 + svg.CHAR * 12 * len(text)
    if x + width > chart.width + 4:
        return True
    others = [(chart.px(end[1]), chart.py(end[2])) for j, end in enumerate(ends) if j != i]
    return x > width and any(x < other < x + width and abs(y - height) < 9 for other, height in others)


def _beside(chart: svg.Chart, ends: list[End]) -> list[End]:
    """Points with nearly the same annotations and overlapping intervals, moved apart so that none hides another."""
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    places = svg.apart([ends[i][1] for i in order], NEAR, *chart.x)
    moved = list(ends)
    for i, place in zip(order, places):
        name, x, *rest = ends[i]
        moved[i] = (name, place, *rest)
    return moved
