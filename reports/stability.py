"""How stable the comparisons are: over this experiment's worlds or seeds, and against the kept reference run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from metaapo.data import DataError
from reports import check, svg
from reports.calibration import KEPT
from reports.drawing import look_of
from reports.evidence import Logs
from reports.first_screen import comparisons, digits_of, interval, number
from reports.runs import Results
from reports.tables import name_of


def worlds(results: Results) -> dict[str, Any] | None:
    """Each deciding comparison of C1 in every world (or seed): {chart, rows: [{name, values, above, mean}], unit}."""
    logs = Logs(results, results.experiment.judges[0])
    rows = []
    for part in comparisons(results):
        if not part["decides"] or part["benchmark"] != logs.endpoint[0]:
            continue
        better, worse = part["label"].split(" - ")
        table = logs.contrast(better, worse, *logs.endpoint)
        if table is None or len(table) < 2:
            continue
        values = table.mean(axis=1)
        rows.append({"name": name_of(worse), "method": worse, "values": values, "part": part})
    return {"chart": _strip(results, rows), "rows": [_row(row) for row in rows]} if rows else None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    values, part = row["values"], row["part"]
    digits = digits_of(part)
    return {
        "name": row["name"],
        "above": f"{int((values > 0).sum())} of {len(values)}",
        "range": interval(float(values.min()), float(values.max()), digits_of(part)),
        "mean": f"{number(part['effect'], digits)} [{interval(part['ci_low'], part['ci_high'], digits)}]",
        "without": _without_one(values, digits_of(part)),
    }


def _without_one(values: np.ndarray, digits: int) -> str:
    """The range of the mean when any one world is left out."""
    means = (values.sum() - values) / (len(values) - 1)
    return interval(float(means.min()), float(means.max()), digits)


def _strip(results: Results, rows: list[dict[str, Any]]) -> Markup:
    every = np.concatenate([row["values"] for row in rows])
    low, high = min(float(every.min()), 0.0), max(float(every.max()), 0.0)
    pad = 0.08 * ((high - low) or 1.0)
    height = 40 + 34 * len(rows)
    words = "; ".join(f"{row['name']}: " + ", ".join(number(float(v)) for v in row["values"]) for row in rows)
    chart = svg.Chart("Advantage in each world", words, (low - pad, high + pad), (0, len(rows)), 420, height)
    chart.margin = (4, 10, 36, 112)
    each = "world" if len(results.experiment.world.seeds) > 1 else "seed"
    chart.axes(f"advantage, one dot per {each}; bar: 95 % of the mean", "", yticks=[])
    chart.line(0, 0, 0, len(rows), "var(--soft)", width=1)
    methods = list(results.experiment.methods)
    for i, row in enumerate(rows):
        y, look, part = len(rows) - i - 0.5, look_of(row["method"], methods), row["part"]
        chart.text(chart.margin[3] - 8, chart.py(y) + 4, row["name"], "end", "name")
        chart.line(part["ci_low"], y, part["ci_high"], y, look["color"], width=7)
        chart.marks[-1] = chart.marks[-1].replace("<line", '<line opacity=".35"')
        for value in row["values"]:
            chart.point(float(value), y, look["color"], size=4)
    return chart.markup()


def reference(results: Results, kept: Path = KEPT) -> dict[str, Any] | None:
    """This run beside the kept reference run of the same experiment; None if none is kept."""
    folder = kept / results.experiment.experiment
    if not (folder / "scores.csv").exists():
        return None
    try:
        found = check.check(results.folder, folder)
    except DataError:
        return None
    first = results.experiment.judges[0]
    endpoint = Logs(results, first).endpoint
    shown = [c for c in found["comparisons"] if (c["benchmark"], c["metric"], c["judge"]) == (*endpoint, first)]
    rows = [
        {
            "name": name_of(c["method"], c["budget"]),
            "run": number(c["run"], signed=False),
            "reference": number(c["reference"], signed=False),
            "expected": interval(c["low"], c["high"], signed=False),
            "inside": {True: "yes", False: "no", None: "–"}[c["inside"]],
        }
        for c in shown
    ]
    return found | {"rows": rows, "folder": f"docs/results/{results.experiment.experiment}"}
