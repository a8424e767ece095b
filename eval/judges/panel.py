"""Several judges as one: each is asked, and their judgments are pooled.

A panel of judges from different families is cheaper than one large judge and less partial to any one family (Verga et
al., "Replacing judges with juries", 2024, arXiv 2404.18796). Every member keeps its own store and ledger, so that a
panel asks nothing that a member has answered already.

| judgment | pooled by |
| --- | --- |
| preference, grade | mean |
| verdict | median of its five levels; between two levels, the one nearer to a tie |

A judgment that fewer than half of the members gave readably is no judgment of the panel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.judges import Comparison, Conversation, Judge, Judgment

LEVELS = ("B>>A", "B>A", "A=B", "A>B", "A>>B")
TIE = LEVELS.index("A=B")


class PanelJudge:
    """Asks its members and pools what they say."""

    def __init__(self, name: str, members: Sequence[Judge]) -> None:
        self.name = name
        self.members = list(members)

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Mean of the members' preferences."""
        return self._pool([member.prefer(comparisons) for member in self.members], mean)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Median of the members' verdicts."""
        return self._pool([member.verdicts(comparisons) for member in self.members], median_verdict)

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """Mean of the members' grades."""
        return self._pool([member.grade(conversations) for member in self.members], mean)

    def _pool(self, said: list[list[Judgment]], pool: Callable[[list[Any]], Any]) -> list[Judgment]:
        return [self._pooled(judgments, pool) for judgments in zip(*said)]

    def _pooled(self, judgments: Sequence[Judgment], pool: Callable[[list[Any]], Any]) -> Judgment:
        readable = [judgment.value for judgment in judgments if judgment.value is not None]
        value = pool(readable) if 2 * len(readable) >= len(self.members) else None
        values = {member.name: judgment.value for member, judgment in zip(self.members, judgments)}
        text = "\n\n".join(f"{member.name}: {j.text}" for member, j in zip(self.members, judgments))
        shared = judgments[0]  # all members see the same prompt, and answer in the same file format
        details = {key: value for key, value in shared.details.items() if key != "preference_raw_completion"}
        return Judgment(value, text, shared.prompt, details | {"panel": values})


def mean(values: list[float]) -> float:
    """The mean of readable preferences or grades."""
    return float(np.mean(values))


def median_verdict(values: list[str]) -> str:
    """The median of readable verdicts; halfway between two levels it is the one nearer to a tie."""
    middle = float(np.median([LEVELS.index(value) for value in values]))
    return LEVELS[int(np.floor(middle)) if middle > TIE else int(np.ceil(middle))]
