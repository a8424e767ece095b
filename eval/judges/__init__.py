"""Judges, which compare two answers or grade a conversation.

A judge is an object with three methods, one for each kind of judgment that the benchmarks need. Each takes all
questions at once, so that a judge behind a network endpoint can work on many concurrently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from metaapo.data import Message


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt.

    Attributes:
        prompt: the conversation, ending with a user turn.
        first: the first answer (AlpacaEval's output_1, Arena-Hard's A).
        second: the second answer.
        question: the question's id.
        category: the question's category.
        models: who gave the first and the second answer; a judge that reads the answers must not look at this.
        benchmark: the question's benchmark, for judges that look up judgments or prompts.
        second_prompt: the conversation before the second answer, where it differs; None if both answer `prompt`.
    """

    prompt: list[Message]
    first: str
    second: str
    question: str = ""
    category: str = ""
    models: tuple[str, str] = ("", "")
    benchmark: str = ""
    second_prompt: list[Message] | None = None

    @property
    def prompts(self) -> tuple[list[Message], list[Message]]:
        """The conversations before the first and before the second answer."""
        return self.prompt, self.prompt if self.second_prompt is None else self.second_prompt

    def swapped(self) -> Comparison:
        """The same comparison with its answers, and the conversations before them, swapped."""
        prompt, second_prompt = self.prompts[::-1]
        return replace(
            self,
            prompt=prompt,
            first=self.second,
            second=self.first,
            models=self.models[::-1],
            second_prompt=None if self.second_prompt is None else second_prompt,
        )


@dataclass(frozen=True)
class Conversation:
    """A conversation whose last assistant turn is to be graded.

    Attributes:
        messages: user and assistant in turn, ending with the assistant.
        category: the question's category.
        references: reference answers to the user turns, empty if there are none.
        question: the question's id.
        model: who gave the answers; a judge that reads the answers must not look at this.
        benchmark: the question's benchmark, for judges that look up judgments or prompts.
    """

    messages: list[Message]
    category: str = ""
    references: tuple[str, ...] = ()
    question: str = ""
    model: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class Judgment:
    """A judge's judgment.

    Attributes:
        value: a preference in [1, 2] (2: the second answer is better), a verdict such as "A>>B", or a grade; None if
            the judge's reply could not be read. None never becomes a score.
        text: the judge's reply.
        prompt: the prompt, if the judge was asked in text.
        details: further entries for the benchmark's file.
    """

    value: float | str | None
    text: str
    prompt: str = ""
    details: dict[str, Any] = field(default_factory=dict)


# How far a verdict favours the first answer, A.
SHARES = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}


def share_of_first(value: float | str | None) -> float:
    """How far a preference in [1, 2] or a verdict favours the first answer, 0 to 1; NaN if it could not be read."""
    if value is None:
        return float("nan")
    return SHARES[value] if isinstance(value, str) else 2 - value


class Judge(Protocol):
    """The interface of all judges.

    A judge that reads files also has `depends_on(benchmark) -> dict`, which returns their checksums; it judges again if
    they change.
    """

    name: str

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """How much better the second answer is: a preference in [1, 2] (AlpacaEval)."""
        ...

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Which answer is better, in five levels from "A>>B" to "B>>A", A being the first answer (Arena-Hard)."""
        ...

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """A grade from 1 to 10 for the last answer (MT-Bench)."""
        ...
