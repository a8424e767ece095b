"""Ask a judge about every pair of answers in both orders and average its preferences.

AlpacaEval shows two answers in one order only, determined by the instruction. A judge that favours one position then
adds noise to every comparison; asking in both orders cancels it at twice the cost. Arena-Hard asks in both orders
anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.judges import Comparison, Conversation, Judge, Judgment


class BothOrders:
    """Asks another judge in both orders if the benchmark asks in only one."""

    def __init__(self, judge: Judge) -> None:
        self.name = judge.name
        self.members = [judge]

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """The mean preference of both orders; None if either is unreadable, since one order alone would keep the
        bias."""
        said = self.members[0].prefer([*comparisons, *(comparison.swapped() for comparison in comparisons)])
        return [_joined(*pair) for pair in zip(said, said[len(comparisons) :])]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Verdicts, unchanged: Arena-Hard already asks for both games."""
        return self.members[0].verdicts(comparisons)

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """Grades, unchanged: a single answer has no order."""
        return self.members[0].grade(conversations)


def _joined(straight: Judgment, swapped: Judgment) -> Judgment:
    """Combine two preferences; `orders` keeps both, as preferences for the second answer of the original order."""
    one = None if straight.value is None else float(straight.value)
    other = None if swapped.value is None else 3 - float(swapped.value)
    value = None if one is None or other is None else (one + other) / 2
    text = f"{straight.text}\n\nIn the other order: {swapped.text}"
    return replace(straight, value=value, text=text, details=straight.details | {"orders": [one, other]})
