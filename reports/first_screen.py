"""The report's first screen: a headline, the win matrix and whether the experiment could have found otherwise.

Every sentence is made from claims.json, assay.json and the run logs; none is written by hand for one experiment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from metaapo.data import read_json
from reports import roles
from reports.runs import Results
from reports.tables import BENCHMARKS, TITLES, name_of

Record = dict[str, Any]
# state of a comparison -> (mark, word in a cell, CSS class)
STATES = {
    "supported": ("▲", "better", "win"),
    "equivalent": ("=", "equal", "tie"),
    "worse": ("▼", "worse", "loss"),
    "no gain that matters": ("≤", "no gain", "flat"),
    "inconclusive": ("?", "open", "open"),
    "untestable here": ("∅", "untestable", "open"),
}
HEADLINE = {  # state of a baseline -> what the method under test did, in the order of the sentence
    "supported": "beats {}",
    "equivalent": "equals {}",
    "no gain that matters": "shows no gain that matters over {}",
    "worse": "loses to {}",
    "inconclusive": "is not told apart from {}",
}


def number(value: float, digits: int = 1, signed: bool = True) -> str:
    """A number with a true minus sign.

    >>> number(-0.6066), number(4.95)
    ('−0.6', '+5.0')
    """
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 1, signed: bool = True) -> str:
    """An interval such as "−1.4 to +0.2"; empty without ends."""
    if low is None or high is None:
        return ""
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def digits_of(part: Record) -> int:
    """Decimals of a comparison: one for points, two for grades."""
    return 2 if part["unit"] == "grade" else 1


# ---------------------------------------------------------------------------------------------------------------------
# Matrix


def comparisons(results: Results) -> list[Record]:
    """Every comparison of C1 with an interval, deciding or not."""
    claim = next((c for c in results.claims if c["id"] == "C1"), None)
    return [part for part in claim["parts"] if part["benchmark"] and part["effect"] is not None] if claim else []


def state_of(part: Record) -> str:
    """The state of a comparison: its verdict if it decides, else what its 95 % interval says without correction."""
    if part["verdict"]:
        return part["verdict"]
    if part["ci_low"] is None:
        return "inconclusive"
    low, high, margin = part["ci_low"] - part["bound"], part["ci_high"] - part["bound"], part["margin"]
    if margin and -margin < low and high < margin:
        return "equivalent"
    if low > 0:
        return "supported"
    if high < 0:
        return "worse"
    return "no gain that matters" if margin and high < margin else "inconclusive"


def matrix(results: Results) -> Record | None:
    """The comparisons of C1 as a table: metrics as rows, baselines as columns; None without any.

    Returns:
        {columns: [baseline titles], rows: [{title, words, decides, cells: [cell or None]}]}.
    """
    parts = comparisons(results)
    if not parts:
        return None
    baselines = list(dict.fromkeys(part["label"].split(" - ")[1] for part in parts))
    metrics = dict.fromkeys((part["benchmark"], part["metric"]) for part in parts)
    metrics = sorted(metrics, key=lambda metric: not any(p["decides"] for p in parts if _metric(p) == metric))
    rows = []
    for metric in metrics:
        of = {part["label"].split(" - ")[1]: part for part in parts if _metric(part) == metric}
        rows.append(
            {
                "title": metric_title(*metric),
                "decides": any(part["decides"] for part in of.values()),
                "cells": [_cell(of[name]) if name in of else None for name in baselines],
            }
        )
    return {"columns": [name_of(name) for name in baselines], "rows": rows, "unit": parts[0]["unit"]}


def _metric(part: Record) -> tuple[str, str]:
    return part["benchmark"], part["metric"]


def metric_title(benchmark: str, metric: str) -> str:
    """A metric in a few words, such as "Arena-Hard SC"."""
    if benchmark not in BENCHMARKS:
        return "All benchmarks"
    labels = {column.metric: column.label for column in BENCHMARKS[benchmark].columns}
    return f"{TITLES[benchmark]} {labels.get(metric, metric)}".strip()


def _cell(part: Record) -> Record:
    state, digits = state_of(part), digits_of(part)
    mark, word, slug = STATES.get(state, STATES["inconclusive"])
    return {
        "mark": mark,
        "word": word,
        "slug": slug,
        "effect": number(part["effect"], digits),
        "interval": interval(part["ci_low"], part["ci_high"], digits).replace(" to ", ", "),
        "href": contrast_route(part),
    }


def contrast_route(part: Record) -> str:
    """The page's address of the evidence behind a comparison."""
    better, worse = part["label"].split(" - ")
    return f"#/contrast/{better}/{worse}/{part['benchmark']}/{part['metric']}"


# ---------------------------------------------------------------------------------------------------------------------
# Headline


def headline(results: Results) -> str:
    """What the experiment found, in one or two sentences."""
    parts = [part for part in comparisons(results) if part["decides"]]
    if not parts:
        return _without_comparison(results)
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(part["label"].split(" - ")[1] for part in parts):
        of = [part for part in parts if part["label"].split(" - ")[1] == name]
        state = _together([state_of(part) for part in of])
        size = f" ({number(of[0]['effect'], digits_of(of[0]))}{{}})" if len(of) == 1 else ""
        found.setdefault(state, []).append(name_of(name) + size)
    clauses = [words.format(listed(found[state])) for state, words in HEADLINE.items() if state in found]
    tested = name_of(parts[0]["label"].split(" - ")[0])
    unit = " points" if parts[0]["unit"] == "points" else " grades"
    where = "In a small world, " if results.experiment.world.name == "tiny" else ""
    sentence = f"{where}{tested} {listed(clauses)}.".replace("{}", unit, 1).replace("{}", "")
    return sentence + _price(results)


def _together(states: Sequence[str]) -> str:
    """The state of several comparisons with one baseline: that of all, else refuted by one, else open."""
    if len(set(states)) == 1:
        return states[0]
    refuted = [state for state in ("worse", "no gain that matters", "equivalent") if state in states]
    return refuted[0] if refuted else "inconclusive"


def _price(results: Results) -> str:
    part = annotations(results)
    if part is None:
        return ""
    rival = roles.first_that(results.experiment, roles.full_budget)
    owned = f"{name_of(rival)}'s annotations" if rival else "the annotations of sampling every prompt"
    return f" It asks for {number(part['effect'], 0, signed=False)} % of {owned}."


def annotations(results: Results) -> Record | None:
    """The comparison of annotations in C2; None if it was not measured."""
    parts = next((c["parts"] for c in results.claims if c["id"] == "C2"), [])
    return next((p for p in parts if not p["benchmark"] and p["effect"] is not None), None)


def _without_comparison(results: Results) -> str:
    methods = listed([name_of(name) for name in results.experiment.methods])
    if "metaapo" not in results.experiment.methods:
        return f"This experiment trains {methods}. MetaAPO is not among them, so none of the paper's claims is tested."
    return f"This experiment trains {methods}, and no baseline that MetaAPO could be compared with."


def certainty(results: Results) -> str:
    """How sure the numbers of the matrix are, in one sentence; empty without any."""
    parts = comparisons(results)
    if not parts:
        return ""
    claim = results.claims[0]
    n, prompts = parts[0]["n_seeds"], parts[0]["n_prompts"]
    if n < 2:
        return "One training run of each method: no interval, since one run says nothing about the next."
    what = "independent worlds" if claim["replicates"] == "worlds" else "training seeds"
    return f"{n} {what}, {prompts} questions, 95 % intervals over both; verdicts corrected for many comparisons."


# ---------------------------------------------------------------------------------------------------------------------
# Could it have been seen?


def could_have_seen(results: Results) -> list[Record]:
    """The answer to "could this experiment have found otherwise?": {answer, text, claims} for each kind of answer."""
    path = results.folder / "assay.json"
    rows = {row["name"]: row for row in read_json(path)} if path.exists() else {}
    return [*_power(rows), *_untestable(results), *_untested(results)]


def _power(rows: dict[str, Record]) -> list[Record]:
    row = rows.get("smallest_effect")
    if row is None or row["value"] is None:
        return [
            {
                "answer": "Not measured",
                "slug": "open",
                "text": "no comparison has an interval, so its power is unknown.",
            }
        ]
    size = f"{row['value']:.1f} {row['unit']}"
    text = f"a true advantage of {size} over any baseline would be found in 4 of 5 such experiments"
    if row["ok"] is False:
        return [{"answer": "Only large effects", "slug": "loss", "text": f"{text}; a smaller one could be missed."}]
    return [{"answer": "Yes", "slug": "win", "text": f"{text}."}]


def _untestable(results: Results) -> list[Record]:
    found = [claim for claim in results.claims if claim["verdict"] == "untestable here"]
    return [
        {
            "answer": f"Not for {claim['id']}",
            "slug": "loss",
            "text": f"“{claim['statement'].rstrip('.')}” cannot be tested here, since {_short(claim['reason'])}.",
        }
        for claim in found[:1]
    ]


def _short(reason: str) -> str:
    """The first part of a reason, without its numbers in brackets."""
    return re.sub(r" \([^()]*\)", "", reason.split("; ")[0])


def _untested(results: Results) -> list[Record]:
    ids = [claim["id"] for claim in results.claims if claim["verdict"] == "not tested"]
    if not ids:
        return []
    verb = "needs" if len(ids) == 1 else "need"
    text = f"{listed(ids)} {verb} methods that this experiment does not train."
    return [{"answer": "Not tried", "slug": "open", "text": text}]
