"""A judge that is shown every two answers in the other order.

Arena-Hard asks in both orders anyway; for AlpacaEval, which asks in one, this is the other half. It is the same judge
with the same store: nothing that was asked is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.judges import Comparison, Conversation, Judge, Judgment

MIRRORED = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}


class SwappedJudge:
    """Swaps two answers before it asks, and what is said of them afterwards."""

    def __init__(self, name: str, judge: Judge) -> None:
        self.name = name
        self.members = [judge]

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Preferences of the answers in their original places."""
        said = self.members[0].prefer([swap(comparison) for comparison in comparisons])
        return [replace(j, value=None if j.value is None else 3 - float(j.value)) for j in said]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Verdicts on the answers in their original places."""
        said = self.members[0].verdicts([swap(comparison) for comparison in comparisons])
        return [replace(j, value=None if j.value is None else MIRRORED[str(j.value)]) for j in said]

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """Grades: a single answer has no order."""
        return self.members[0].grade(conversations)


def swap(comparison: Comparison) -> Comparison:
    """The same comparison with its answers in each other's place."""
    return replace(comparison, first=comparison.second, second=comparison.first, models=comparison.models[::-1])
