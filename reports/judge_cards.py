"""The report's card of each judge, from the records that `eval.judge_card` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metaapo.data import read_json
from reports.runs import Results
from reports.tables import TITLES

Record = Mapping[str, Any]
NOTHING = "–"
CHECKS = {
    "constant": "An empty phrase as the answer to everything",
    "pad": "The answer repeated twice, against the original",
    "command": "Gain from a command to the judge",
    "verdict": "Gain from a ready-made verdict",
}
NOT_CHECKED = (
    "Checks with extra judge calls were not run; to run them, set evaluation.trust.checks: true and "
    "evaluation.trust.human_labels (human votes)."
)


def judge_cards(results: Results) -> list[dict[str, Any]]:
    """The existing judge cards, in the order of the configuration.

    Returns:
        {name, about, warnings, benchmarks (titles), rows: [{label, cells}], others: [{judge, rows}], cost, note} each.
    """
    paths = [results.folder / "judges" / name / "judge_card.json" for name in results.experiment.judges]
    return [card_view(read_json(path)) for path in paths if path.is_file()]


def card_view(card: Record) -> dict[str, Any]:
    """A card as the HTML page shows it."""
    benchmarks = card["benchmarks"]
    columns = list(benchmarks.values())
    others = dict.fromkeys(other["judge"] for column in columns for other in column["others"])
    return {
        "name": card["judge"]["name"],
        "about": _about(card["judge"]),
        "warnings": card["warnings"],
        "benchmarks": [TITLES.get(name, name) for name in benchmarks],
        "rows": _filled([*_own_rows(columns), *_check_rows(columns), *_human_rows(columns)]),
        "others": [{"judge": judge, "rows": _filled(_other_rows(columns, judge))} for judge in others],
        "cost": _cost(card["cost"]),
        "note": "" if any(column["checks"] for column in columns) else NOT_CHECKED,
    }


def _about(judge: Record) -> str:
    families = f"family: {' and '.join(judge['families'])}" if judge["families"] else ""
    parts = [f"kind: {judge['kind']}", judge["model"], str(judge["date"] or ""), families]
    return ", ".join(part for part in parts if part)


def _cost(ledger: Record | None) -> str:
    if ledger is None:
        return ""
    failed = sum(ledger["failed"].values())
    ended = ", ".join(f"{reason or 'unnamed'} {n}" for reason, n in ledger.get("finish_reasons", {}).items())
    unsure = f", and at most ${ledger['unsure_dollars']:.2f} more" if ledger["unsure_dollars"] else ""
    return (
        f"{ledger['answered']} answers and {failed} failed attempts so far, {ledger['prompt_tokens']} prompt and "
        f"{ledger['completion_tokens']} completion tokens, ${ledger['dollars']:.2f}{unsure}; across all "
        "experiments that share the judge's store."
    ) + (f" Finish reasons: {ended}." if ended else "")


Row = tuple[str, list[str]]


def _filled(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with at least one measured value."""
    return [{"label": label, "cells": cells} for label, cells in rows if any(cell != NOTHING for cell in cells)]


def _row(label: str, columns: Sequence[Any], show: Callable[[Any], str]) -> Row:
    return label, [NOTHING if column is None else show(column) for column in columns]


def _own_rows(columns: Sequence[Record]) -> list[Row]:
    orders = [column["orders"] or (column["checks"] or {}).get("orders") for column in columns]
    orders = [found if found and found["n"] else None for found in orders]
    members = [column["members"] for column in columns]
    retests = [(m or {}).get("retest") or (c["checks"] or {}).get("retest") for m, c in zip(members, columns)]
    return [
        _row("Judgments", columns, lambda c: f"{c['n']}"),
        _row("Unreadable judgments", columns, lambda c: _percent(c["unreadable"] / c["n"]) if c["n"] else NOTHING),
        _row(
            "Score of the most affected model, if all of these were lowest or highest",
            [c["bounds"] for c in columns],
            _bounds,
        ),
        _row("Most frequent value", [c["values"] for c in columns], _favourite),
        _row("Correlation of value and length", [c["length"] for c in columns], _number),
        _row("Order swapped: winner changes", orders, lambda o: _percent(o["reversed"])),
        _row("Order swapped: tie becomes win or win becomes tie", orders, lambda o: _percent(o["tie_against_win"])),
        _row("Advantage of the answer shown first, wins", orders, lambda o: f"{o['first_slot_advantage']:+.3f}"),
        _row("Repeated: same judgment", retests, lambda r: _percent(r["exact"])),
        _row("Repeated: reliability (ICC)", retests, lambda r: _plain(r["reliability"])),
        _row("Repeated: noise of one judgment (SD)", retests, lambda r: _plain(r["noise"])),
        _row("Agreement of panel members, alpha", [m and m["alpha"] for m in members], _number),
    ]


def _bounds(bounds: Record) -> str:
    return f"{bounds['low']:.1f} to {bounds['high']:.1f}"


def _favourite(values: Record) -> str:
    return f"{values['most_frequent']:g}: {values['share']:.0%} of values, {values['distinct']} distinct"


def _check_rows(columns: Sequence[Record]) -> list[Row]:
    rows = []
    for key, label in CHECKS.items():
        found = [(column["checks"] or {}).get(key) for column in columns]
        rows.append(_row(label, found, _passed))
    return rows


def _passed(check: Record) -> str:
    mark = {True: "passed", False: "FAILED", None: "not decided"}[check["passed"]]
    return f"{_number(check)}, {mark}"


def _human_rows(columns: Sequence[Record]) -> list[Row]:
    people = [(column["checks"] or {}).get("human") for column in columns]
    measures = {
        "Agrees with human votes, without ties": "without_ties",
        "Humans with each other, without ties": "people_without_ties",
        "Agrees with human votes, with ties": "with_ties",
        "Humans with each other, with ties": "people_with_ties",
        "Kappa with the human majority": "kappa",
        "Alpha of humans": "alpha_people",
        "Alpha of humans and the judge": "alpha_with_judge",
        "Wins of the judge's own family beyond human votes": "self_preference",
        "Human win rate where the judge's is 60 %": "corrected",
    }
    pairs = [(found or {}).get("pairs") for found in people]
    return [_row(label, [(found or {}).get(key) for found in people], _number) for label, key in measures.items()] + [
        _row("Pairs: agrees with human votes, without ties", [p and p["without_ties"] for p in pairs], _number),
        _row("Pairs, order swapped: winner changes", [p and p["orders"] for p in pairs], _reversed),
        _row(
            "Pairs, order swapped: tie becomes win or win becomes tie",
            [p and p["orders"] for p in pairs],
            _tie_against_win,
        ),
    ]


def _reversed(orders: Record) -> str:
    return _percent(orders["reversed"])


def _tie_against_win(orders: Record) -> str:
    return _percent(orders["tie_against_win"])


def _other_rows(columns: Sequence[Record], judge: str) -> list[Row]:
    found = [next((other for other in c["others"] if other["judge"] == judge), None) for c in columns]

    def part(key: str) -> list[Any]:
        return [other and other[key] for other in found]

    return [
        _row("Answers judged by both", found, lambda other: f"{other['n']}"),
        _row("Same winner", part("winners"), _number),
        _row("Kappa of winners", part("kappa"), _number),
        _row("Alpha of values", part("alpha"), _number),
        _row(
            "Mean difference, with limits of agreement",
            part("bias"),
            lambda b: _interval(b["bias"], b["low"], b["high"]),
        ),
        _row(
            "Rank agreement over models, Kendall's tau",
            part("ranks"),
            lambda r: _interval(r["tau"], r["ci_low"], r["ci_high"]),
        ),
        _row(f"Predicted score of {judge} from this judge's score", part("equating"), _line),
        _row("Prediction error for a new model", part("equating"), lambda e: f"± {_plain(e['error'])}"),
    ]


def _line(equating: Record) -> str:
    slope = _interval(equating["slope"], equating["slope_low"], equating["slope_high"])
    return f"{equating['intercept']:.2f} + {slope} × score"


def _number(found: Record) -> str:
    return _interval(found["value"], found["ci_low"], found["ci_high"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return NOTHING
    return _plain(value) + ("" if low is None or high is None else f" [{_plain(low)}, {_plain(high)}]")


def _plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"
