"""The gold judge of a small world: a program that computes an answer's true reward and explains it. It plays the role
that people, or GPT-4 as a substitute, play for real prompts. Training never sees it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from eval.judges import Comparison, Conversation, Judgment
from eval.judges.config import JudgeConfig, gold_module
from eval.judges.rewards import Scale, grade, preference, verdict
from metaapo.experiment import Experiment


def open_judge(name: str, config: JudgeConfig, experiment: Experiment, world: int, quote: bool) -> GoldJudge:
    """The judge of a catalogue's entry."""
    return GoldJudge(name, experiment.world.name)


class GoldJudge:
    """Judges by the gold reward of a world: its module `metaapo.worlds.<world>.gold`."""

    def __init__(self, name: str, world: str) -> None:
        self.name = name
        self._world: ModuleType = importlib.import_module(gold_module(world))
        self._scale = Scale(self._world.TAU, self._world.LOW, self._world.HIGH)

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """A preference in [1, 2], exact."""
        return [self._compare(comparison, preference) for comparison in comparisons]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """A five-level verdict."""
        return [self._compare(comparison, verdict) for comparison in comparisons]

    def _compare(self, comparison: Comparison, decide: Any) -> Judgment:
        answers = zip(comparison.prompts, (comparison.first, comparison.second))
        golds = [self._world.gold(prompt, answer) for prompt, answer in answers]
        value = decide(golds[0].reward, golds[1].reward, self._scale)
        reasons = [f"Assistant {name}: {_reason(gold)}" for name, gold in zip("AB", golds)]
        conclusion = f"My final verdict is [[{value}]]" if isinstance(value, str) else f"Preference {value:.4f}"
        return Judgment(value, "\n".join([*reasons, conclusion]))

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """A grade from 1 to 10."""
        return [self._grade(conversation) for conversation in conversations]

    def _grade(self, conversation: Conversation) -> Judgment:
        *prompt, answer = conversation.messages
        gold = self._world.gold(prompt, answer["content"])
        value = grade(gold.reward, self._scale)
        return Judgment(value, f"{_reason(gold)}\nRating: [[{value:g}]]")


def _reason(gold: Any) -> str:
    """Why an answer has its reward, such as "reward 2.2 = correctness 1 + completeness 1 + manner 0.2 + length 0"."""
    return f"reward {gold.reward:g} = " + " + ".join(f"{part} {value:g}" for part, value in gold.rubric.items())
