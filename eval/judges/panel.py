"""Several judges as one: each is asked, and their judgments are pooled.

Two uses: a panel of judges from different families, which is cheaper than one large judge and less partial to any one
family (Verga et al., "Replacing judges with juries", 2024, arXiv 2404.18796), and one judge asked repeatedly, whose
noise shrinks with the square root of the number (`repeats`). Every judge keeps its own store and ledger, so a panel
never repeats a request that a member has already answered.

| judgment | pooled by |
| --- | --- |
| preference, grade | mean |
| verdict | median of its five levels; between two levels, the one nearer to a tie |

If fewer than half of the members give a readable judgment, the panel's judgment is unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.judges import Comparison, Conversation, Judge, Judgment
from eval.judges.both_orders import BothOrders
from eval.judges.config import JudgeConfig
from metaapo.experiment import Experiment

LEVELS = ("B>>A", "B>A", "A=B", "A>B", "A>>B")
TIE = LEVELS.index("A=B")


def open_judge(name: str, config: JudgeConfig, experiment: Experiment, world: int, quote: bool) -> PanelJudge:
    """The panel of a catalogue's entry."""
    from eval.judges import catalogue  # which imports this module by name

    members = [catalogue.open_judge(experiment, member, world, quote, config.sample) for member in config.members]
    return PanelJudge(name, members, config.members)


def ask_more(name: str, config: JudgeConfig, open_one: Callable[[JudgeConfig], Judge]) -> Judge:
    """Wrap a judge to follow its entry's `repeats` and `orders`.

    Args:
        name: the judge's.
        config: its entry.
        open_one: opens the judge of an entry, ignoring these two keys.
    """
    members = []
    for repeat in range(config.repeats):
        judge = open_one(config.model_copy(update={"sample": config.sample + repeat}))
        members.append(BothOrders(judge) if config.orders == "both" else judge)
    if len(members) == 1:
        return members[0]
    return PanelJudge(name, members, [f"{name} #{n}" for n in range(1, config.repeats + 1)])


class PanelJudge:
    """Asks its members and pools their judgments."""

    def __init__(self, name: str, members: Sequence[Judge], labels: Sequence[str]) -> None:
        self.name = name
        self.members = list(members)
        self._labels = list(labels)  # of the members, each once

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Mean of the members' preferences."""
        return self._pool([member.prefer(comparisons) for member in self.members], mean)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Median of the members' verdicts."""
        return self._pool([member.verdicts(comparisons) for member in self.members], median_verdict)

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """Mean of the members' grades."""
        return self._pool([member.grade(conversations) for member in self.members], mean)

    def depends_on(self, benchmark: str) -> dict[str, str]:
        """Checksums of the files that members read."""
        having = [member for member in self.members if hasattr(member, "depends_on")]
        return {file: checksum for member in having for file, checksum in member.depends_on(benchmark).items()}

    def _pool(self, said: list[list[Judgment]], pool: Callable[[list[Any]], Any]) -> list[Judgment]:
        return [self._pooled(judgments, pool) for judgments in zip(*said)]

    def _pooled(self, judgments: Sequence[Judgment], pool: Callable[[list[Any]], Any]) -> Judgment:
        readable = [judgment.value for judgment in judgments if judgment.value is not None]
        value = pool(readable) if 2 * len(readable) >= len(self.members) else None
        values = {label: judgment.value for label, judgment in zip(self._labels, judgments)}
        text = "\n\n".join(f"{label}: {judgment.text}" for label, judgment in zip(self._labels, judgments))
        shared = judgments[0]  # all members see the same prompt, and answer in the same file format
        details = {key: value for key, value in shared.details.items() if key != "preference_raw_completion"}
        return Judgment(value, text, shared.prompt, details | {"panel": values})


def mean(values: list[float]) -> float:
    """The mean of readable preferences or grades."""
    return float(np.mean(values))


def median_verdict(values: list[str]) -> str:
    """The median of readable verdicts; halfway between two levels, the one nearer to a tie."""
    middle = float(np.median([LEVELS.index(value) for value in values]))
    return LEVELS[int(np.floor(middle)) if middle > TIE else int(np.ceil(middle))]
