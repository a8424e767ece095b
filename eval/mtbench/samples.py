"""MT-Bench's answers with the judge's grades in words, for the report's sample browser."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Record = dict[str, Any]


def rows(
    answers: Sequence[Record], judgments: Sequence[Record]
) -> list[tuple[str, list[str], list[str], float | None]]:
    """(question id, texts, verdicts, value from 0 to 1 or None) of each answer, with a text and verdict per turn."""
    graded = {(str(row["question_id"]), row["turn"]): row for row in judgments}
    found = []
    for row in answers:
        question, texts = str(row["question_id"]), row["choices"][0]["turns"]
        records = [graded.get((question, turn)) for turn in range(1, len(texts) + 1)]
        verdicts = ["no verdict" if r is None or r["score"] < 0 else f"grade {r['score']:g}" for r in records]
        scores = [r["score"] for r in records if r is not None and r["score"] >= 0]
        found.append((question, list(texts), verdicts, (fmean(scores) - 1) / 9 if scores else None))
    return found
