"""Arena-Hard's answers with the judge's verdicts in words, for the report's sample browser."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from eval.arenahard.answers import answer_text

Record = dict[str, Any]
LABELS = {"A>>B": 0.0, "A>B": 0.25, "A=B": 0.5, "B>A": 0.75, "B>>A": 1.0}  # only for sorting by disagreement
_WORDS = {0.0: "much worse", 0.25: "worse", 0.5: "tie", 0.75: "better", 1.0: "much better"}


def rows(
    answers: Sequence[Record], judgments: Sequence[Record]
) -> list[tuple[str, list[str], list[str], float | None]]:
    """(question id, texts, verdicts, value from 0 to 1 or None) of each answer; a baseline's answer has no judgment."""
    games = {str(row.get("uid", row.get("question_id"))): row["games"] for row in judgments}
    found = []
    for row in answers:
        question = str(row.get("uid", row.get("question_id")))
        labels = [(game or {}).get("score") for game in games.get(question, [])]
        # game 1 has A = baseline, game 2 has A = the model
        values = [LABELS[x] if i == 0 else 1 - LABELS[x] for i, x in enumerate(labels) if x in LABELS]
        shown = [_seen(label, first=i == 0) for i, label in enumerate(labels)]
        text = answer_text(row) or ""
        found.append((question, [text], ["; ".join(shown) or "baseline"], fmean(values) if values else None))
    return found


def _seen(label: str | None, first: bool) -> str:
    """A game's label in words, from the model's side."""
    if label not in LABELS:
        return "no verdict"
    value = LABELS[label] if first else 1 - LABELS[label]
    return f"{'shown second' if first else 'shown first'}: {_WORDS[value]}"
