"""How sure the order of the methods is: intervals of ranks, and probabilities of improvement, over worlds (or seeds).

After rliable (Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021),
but without its bootstrap, which is too optimistic for as few worlds as an experiment has:

- The *interval of a rank* runs from 1 + the methods that are significantly better to k - the methods that are
  significantly worse, by paired tests over worlds and questions, corrected over a method's k - 1 comparisons (Holm). It
  covers a method's true rank with at least 95 % (Mogstad, Romano, Shaikh & Wilhelm, "Inference for ranks", Review of
  Economic Studies 91, 2024).
- The *probability of improvement* is the chance that the method under test scores above another one in the same world;
  the share of worlds in which it did, with the exact binomial interval. Equal scores are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.stats import binomtest

from eval import stats
from reports import svg
from reports.drawing import look_of
from reports.evidence import Logs
from reports.first_screen import number
from reports.runs import Results
from reports.tables import name_of

METHOD = "metaapo"
ALPHA = 0.05
Interval = tuple[float, float, float]


def ranks(results: Results) -> list[dict[str, Any]]:
    """Every method by its score on the endpoint, {method, name, score, rank, low, high}; empty with fewer than two.

    Each method is taken at its largest budget, after the last iteration, under the first judge.
    """
    logs = Logs(results, results.experiment.judges[0])
    scores = {method: _mean(logs.scores(method)) for method in results.experiment.methods}
    methods = sorted((m for m, score in scores.items() if score is not None), key=lambda m: -scores[m])
    if len(methods) < 2:
        return []
    differences: dict[tuple[str, str], tuple[float, float]] = {}
    for a, b in combinations(methods, 2):
        table = logs.contrast(a, b, *logs.endpoint)
        e = stats.mean_over_seeds_and_prompts(table) if table is not None else None
        value, p = (e.value, e.p_value) if e and e.p_value is not None else (0.0, 1.0)
        differences[a, b], differences[b, a] = (value, p), (-value, p)
    found = []
    for place, method in enumerate(methods):
        low, high = rank_interval([differences[method, other] for other in methods if other != method])
        named = {"method": method, "name": name_of(method), "score": scores[method]}
        found.append(named | {"rank": place + 1, "low": low, "high": high})
    return found


def rank_interval(differences: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """The ranks that a method may have.

    Args:
        differences: (its advantage, two-sided p-value) over every other method.

    >>> rank_interval([(-2.0, 0.001), (0.1, 0.8), (3.0, 0.002)])
    (2, 3)
    """
    clear = stats.holm([p for _, p in differences]) <= ALPHA
    better = sum(bool(c) and value < 0 for c, (value, _) in zip(clear, differences))
    worse = sum(bool(c) and value > 0 for c, (value, _) in zip(clear, differences))
    return 1 + better, len(differences) + 1 - worse


def improvements(results: Results) -> list[dict[str, Any]]:
    """The method under test against every other one: {method, name, ahead, n, value, low, high}, all in 0 to 1."""
    logs = Logs(results, results.experiment.judges[0])
    found = []
    for other in results.experiment.methods if METHOD in results.experiment.methods else ():
        table = logs.contrast(METHOD, other, *logs.endpoint) if other != METHOD else None
        values = table.mean(axis=1) if table is not None else np.array([])
        ahead, n = int((values > 0).sum()), int((values != 0).sum())
        if n > 1:
            interval = binomtest(ahead, n).proportion_ci()
            named = {"method": other, "name": name_of(other), "ahead": ahead, "n": n, "value": ahead / n}
            found.append(named | {"low": float(interval.low), "high": float(interval.high)})
    return sorted(found, key=lambda row: (-row["value"], row["name"]))


def ranking(results: Results) -> dict[str, Any] | None:
    """Both as charts with a sentence, as the page shows them; None with fewer than two methods."""
    order = ranks(results)
    if not order:
        return None
    methods, k = list(results.experiment.methods), len(order)
    rows = [
        (f"{row['name']}, {number(row['score'], signed=False)}: {_span(row)}", (row["rank"], row["low"], row["high"]))
        for row in order
    ]
    colors = [look_of(row["method"], methods)["color"] for row in order]
    chart = _intervals("Ranks", rows, colors, (0.5, k + 0.5), "rank; 1 is best", range(1, k + 1) if k < 12 else None)
    better = improvements(results)
    rows = [(f"{row['name']}: ahead in {row['ahead']} of {row['n']}", _of(row)) for row in better]
    colors = [look_of(row["method"], methods)["color"] for row in better]
    scale = ((0, 1), "probability", (0, 0.25, 0.5, 0.75, 1), 0.5)
    share = _intervals("Probability of improvement", rows, colors, *scale) if rows else None
    return {"answer": _answer(order), "ranks": chart, "improvement": share}


def _of(row: dict[str, Any]) -> Interval:
    return row["value"], row["low"], row["high"]


def _span(row: dict[str, Any]) -> str:
    return f"rank {row['low']}" if row["low"] == row["high"] else f"ranks {row['low']} to {row['high']}"


def _answer(order: list[dict[str, Any]]) -> str:
    first = [row["name"] for row in order if row["low"] == 1]
    may = f"{first[0]} is first" if len(first) == 1 else f"{len(first)} of {len(order)} methods may be first"
    mine = next((row for row in order if row["method"] == METHOD), None)
    if mine is None:
        return f"{may}, at 95 % confidence."
    sure = "It ranks" if mine["low"] == mine["high"] else "Its true rank may be any of"
    span = f"{mine['low']}" if mine["low"] == mine["high"] else f"{mine['low']} to {mine['high']}"
    return f"{mine['name']} came {mine['rank']} of {len(order)}. {sure} {span}; {may}, at 95 % confidence."


def _intervals(
    title: str,
    rows: Sequence[tuple[str, Interval]],
    colors: Sequence[str],
    ends: tuple[float, float],
    label: str,
    xticks: Sequence[float] | None,
    mark: float | None = None,
) -> Markup:
    """Intervals on one scale, each below its name, so that names of any length fit a narrow screen."""
    words = "; ".join(name for name, _ in rows)
    chart = svg.Chart(title, words, ends, (0, len(rows)), 340, 44 + 32 * len(rows), (4, 10, 36, 10))
    chart.axes(label, "", xticks=xticks, yticks=[])
    if mark is not None:
        chart.line(mark, 0, mark, len(rows), "var(--soft)", width=1)
    for i, ((name, (value, low, high)), color) in enumerate(zip(rows, colors)):
        y = len(rows) - i - 0.7
        chart.text(chart.px(ends[0]), chart.py(y) - 9, name, "start", "name")
        chart.line(low, y, high, y, color, width=3)
        chart.point(value, y, color, size=5)
    return chart.markup()


def _mean(scores: dict[int, float]) -> float | None:
    return float(np.mean(list(scores.values()))) if scores else None
