"""Pooled answers with the judge's verdicts in words, for the report's sample browser."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Record = dict[str, Any]


def rows(
    answers: Sequence[Record], judgments: Sequence[Record]
) -> list[tuple[str, list[str], list[str], float | None]]:
    """(question id, texts, verdicts, value from 0 to 1 or None), with a text and verdict per turn; a baseline's answer
    has no judgment."""
    judged = {row["question"]: [turn["preference"] for turn in row["turns"]] for row in judgments}
    found = []
    for row in answers:
        preferences = judged.get(row["question"])
        if preferences is None:
            verdicts, value = ["baseline"] * len(row["turns"]), None
        else:
            verdicts = [_in_words(preference) for preference in preferences]
            value = None if None in preferences else fmean(preference - 1 for preference in preferences)
        found.append((row["question"], list(row["turns"]), verdicts, value))
    return found


def _in_words(preference: float | None) -> str:
    if preference is None:
        return "no verdict"
    return f"preferred to the SFT policy's answer with probability {preference - 1:.2f}"
