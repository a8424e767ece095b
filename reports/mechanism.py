"""The mechanism explainer: what the meta-learner maps, sees and samples, at the start and after each iteration.

Every step is drawn here, so that the page needs no script to show them; the script only scrubs through them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from reports import roles, svg
from reports.drawing import look_of
from reports.first_screen import number
from reports.runs import Results
from reports.tables import name_of

BINS = 24
METHOD = "metaapo"
QUARTERS = ("lowest", "low", "high", "highest")
CURRENT = "var(--accent)"


def steps(results: Results) -> list[dict[str, Any]]:
    """One step per point of training, {title, text, charts}; empty if nothing was learned."""
    maps = results.at_full_budget(results.maps)
    maps = maps[maps["method"] == METHOD]
    if not len(maps):
        return []
    ledger = results.at_full_budget(results.annotations)
    rates = quarters(ledger, METHOD)
    rival = roles.first_that(results.experiment, roles.matched_random)
    flat = quarters(ledger, rival) if rival in set(ledger["method"]) else None
    gaps = {gap["iteration"]: gap for claim in results.claims for gap in claim["loss_gaps"]}
    curves = {int(t): of.groupby("score")["weight"].mean() for t, of in maps.groupby("iteration")}
    scores = ledger[ledger["method"] == METHOD]
    low = float(min(scores["offline_score"].quantile(0.002), -0.5))
    found = []
    for t in curves:
        seen = scores[scores["iteration"] == max(t, 1)]["offline_score"]
        charts = [_map_chart(curves, t, low), _score_chart(seen, max(t, 1), low)]
        if t:
            charts.append(_rate_chart(results, t, rates, flat, rival))
        found.append(
            {"title": "start" if t == 0 else f"after iteration {t}", "text": _text(t, rates, gaps), "charts": charts}
        )
    return found


def quarters(ledger: pd.DataFrame, method: str | None) -> pd.DataFrame:
    """Percentage of prompts sampled by quarter of the offline pair's score, within each run and iteration.

    Returns:
        Iterations as rows, the four QUARTERS and "all" as columns; means over runs.
    """
    rows = ledger[ledger["method"] == method]
    rows = rows[rows["offline_score"].notna()]
    if not len(rows):  # a purely online method does not look at the offline pairs
        rows = ledger[ledger["method"] == method].assign(offline_score=0.0)
    group = rows.groupby(["seed", "iteration"])["offline_score"]
    place = (group.rank(method="first") - 1) / group.transform("size")
    quarter = np.minimum((4 * place).astype(int), 3).map(dict(enumerate(QUARTERS)))
    rates = 100 * rows.groupby([rows["iteration"], rows["seed"], quarter])["sampled"].mean().unstack()
    rates["all"] = 100 * rows.groupby(["iteration", "seed"])["sampled"].mean()
    return rates.groupby(level="iteration").mean()[[*QUARTERS, "all"]]


def _map_chart(curves: dict[int, pd.Series], t: int, low: float) -> Markup:
    chart = svg.Chart(
        "The meta-learner's map", f"weight of an offline pair against its score, step {t}", (low, 0), (0, 1), 320, 220
    )
    chart.margin = (22, 12, 36, 30)
    chart.axes("score of the offline pair (0: the policy agrees)", "weight w of the offline pair; sampled with 1 − w")
    for step, curve in curves.items():
        if step > t:
            continue
        shown = curve[curve.index >= low]
        points = list(zip(map(float, shown.index), map(float, shown)))
        current = step == t
        chart.path(points, CURRENT if current else "var(--soft)", "start" if step == 0 else "", 3 if current else 1)
    return chart.markup()


def _score_chart(scores: pd.Series, t: int, low: float) -> Markup:
    counts, ends = np.histogram(scores.clip(lower=low), BINS, (low, 0))
    shares = 100 * counts / max(1, counts.sum())
    top = float(shares.max() * 1.08) or 1.0
    chart = svg.Chart(
        "The scores that it sees", f"share of offline pairs by score, iteration {t}", (low, 0), (0, top), 320, 220
    )
    chart.margin = (22, 12, 36, 30)
    chart.axes("score of the offline pair", f"pairs of iteration {t}, %")
    for share, left, right in zip(shares, ends, ends[1:]):
        x, y = chart.px(left), chart.py(share)
        size = f'width="{chart.px(right) - x - 1:.1f}" height="{chart.py(0) - y:.1f}"'
        chart.marks.append(f'<rect x="{x}" y="{y}" {size} fill="{CURRENT}"/>')
    return chart.markup()


def _rate_chart(results: Results, t: int, rates: pd.DataFrame, flat: pd.DataFrame | None, rival: str | None) -> Markup:
    words = ", ".join(f"{quarter} {rates.loc[t, quarter]:.0f} %" for quarter in QUARTERS)
    chart = svg.Chart(
        "What it samples", f"prompts sampled by quarter of the score: {words}", (0, 4), (0, 100), 320, 220
    )
    chart.margin = (22, 12, 36, 30)
    chart.axes("quarter of the score: lowest to highest", f"prompts sampled in iteration {t}, %", xticks=[])
    for i, quarter in enumerate(QUARTERS):
        rate = rates.loc[t, quarter]
        x, y = chart.px(i + 0.15), chart.py(rate)
        size = f'width="{chart.px(i + 0.85) - x:.1f}" height="{chart.py(0) - y:.1f}"'
        chart.marks.append(f'<rect x="{x}" y="{y}" {size} fill="{CURRENT}"/>')
        chart.text(chart.px(i + 0.5), chart.py(0) - 6, f"{rate:.0f}", "middle", "name inside")
    if flat is not None and t in flat.index:
        level = float(flat.loc[t, "all"])
        look = look_of(rival, list(results.experiment.methods))
        chart.line(0, level, 4, level, look["color"], width=2)
        chart.text(chart.px(4), chart.py(level) - 18, name_of(rival), "end", "name")
    return chart.markup()


def _text(t: int, rates: pd.DataFrame, gaps: dict[int, dict[str, Any]]) -> str:
    if t == 0:
        return "Before training: the map as it is initialised. Nothing has been learned yet."
    row = rates.loc[t]
    spread = abs(row["lowest"] - row["highest"])
    text = (
        f"Iteration {t}: {row['all']:.0f} % of the prompts are sampled; {row['lowest']:.0f} % of those with the lowest "
        f"scores and {row['highest']:.0f} % of those with the highest, a difference of {spread:.0f} points."
    )
    gap = gaps.get(t)
    if gap:
        ends = "" if gap["ci_low"] is None else f" [{number(gap['ci_low'], 2)}, {number(gap['ci_high'], 2)}]"
        text += f" L_off − L_on is {number(gap['value'], 2)}{ends} nats per pair: " + (
            "offline pairs fit better, which raises the weight."
            if gap["value"] < 0
            else "online pairs fit better, which lowers the weight."
        )
    return text
