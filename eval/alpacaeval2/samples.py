"""AlpacaEval's answers with the judge's verdicts in words, for the report's sample browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def rows(
    answers: Sequence[Record], judgments: Sequence[Record]
) -> list[tuple[str, list[str], list[str], float | None]]:
    """(question id, texts, verdicts, value from 0 to 1 or None) of each answer; a baseline's answer has no judgment."""
    preferences = {row["instruction"]: row.get("preference") for row in judgments}
    found = []
    for row in answers:
        preference = preferences.get(row["instruction"])
        value = None if preference is None else preference - 1
        if row["instruction"] not in preferences:
            verdict = "baseline"
        else:
            verdict = "no verdict" if value is None else f"preferred to the baseline with probability {value:.2f}"
        found.append((row["instruction"], [row["output"]], [verdict], value))
    return found
