"""The gold reward of the tiny world, a program that grades an answer by what its prompt asks for.

It reads only the prompt's text, so that a judge needs nothing but texts:

    >>> conversation = [{"role": "user", "content": "list three animals, potter."}]
    >>> gold(conversation, "sure: cat, dog and hen.").reward
    3.0
    >>> gold(conversation, "um, cat, plum and cat.").rubric
    {'correctness': 0.1667, 'completeness': 0.1667, 'clarity': 0.35, 'greeting': 0.0, 'length': 0.0}
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from metaapo.data import Message
from metaapo.worlds.tiny.tasks import CONTENT, GREETINGS, HEDGES, VAGUE, WANTED, PromptError, Task, parse, words_of
from metaapo.worlds.tiny.writers import model_answer

# What graders and judges import from a world.
__all__ = ["HIGH", "LOW", "RUBRIC", "TAU", "Gold", "PromptError", "gold", "prefer"]

LOW, HIGH = -1.0, 3.0  # bounds of the gold reward; every prompt has an answer that earns HIGH
TAU = 0.5  # temperature of the gold judge, in units of reward: P(a beats b) = sigmoid((r_a - r_b) / TAU)
TOKEN_CHARGE = 0.1  # charge for each word or mark beyond those of the model answer
CLARITY, GREETING = 0.7, 1.3  # the most that clarity and the greeting can earn
BAD_WORD_CHARGE = 0.35  # clarity lost for each hedge and each vague word
RUBRIC = {
    "correctness": "0 to 0.5: half the share of the answer's content words that are right; a repeated word is wrong",
    "completeness": "0 to 0.5: half the share of the words asked for that the answer holds",
    "clarity": f"0 to {CLARITY}, only if some word is right: {BAD_WORD_CHARGE} off for each hedge (um, well, maybe, "
    "perhaps) and each vague word (something, stuff, whatever)",
    "greeting": f"0 or {GREETING}, only if some word is right: opening with the greeting that the reader wants "
    f"({', '.join(GREETINGS)})",
    "length": f"0 to -1: {TOKEN_CHARGE} off for each word or punctuation mark beyond those of the model answer; "
    "-1 for an empty answer",
}


@dataclass(frozen=True)
class Gold:
    """A graded answer: `reward` in [LOW, HIGH] is the sum of `rubric`, whose parts are described in `RUBRIC`."""

    reward: float
    rubric: dict[str, float]


@lru_cache(maxsize=65536)
def _model_length(tasks: tuple[Task, ...]) -> int:
    """Number of words and marks in the model answer; it depends on how many words are requested, not on which."""
    return len(_tokens_of(model_answer(tasks)))


def _tokens_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[^a-z\s]", text.lower())


def _count_right(tasks: Sequence[Task], content: Sequence[str]) -> tuple[int, int]:
    """Count the distinct content words that are right, and the wants they fulfil."""
    wants = sorted((want for task in tasks for want in task.wants), key=lambda want: len(want.allowed))
    filled = [0] * len(wants)
    right = 0
    for word in dict.fromkeys(content):
        fitting = [i for i, want in enumerate(wants) if word in want.allowed]
        right += bool(fitting)
        # assign the word to the narrowest open want
        if (still_open := next((i for i in fitting if filled[i] < wants[i].count), None)) is not None:
            filled[still_open] += 1
    return right, sum(filled)


def _clarity(words: Sequence[str]) -> float:
    return max(0.0, CLARITY - BAD_WORD_CHARGE * sum(word in HEDGES or word in VAGUE for word in words))


def _greeting(words: Sequence[str], reader: str) -> float:
    return GREETING * (words[0] == WANTED[reader])


def gold(messages: Sequence[Message], response: str) -> Gold:
    """Grade an answer by the rubric of this world (`RUBRIC`).

    Args:
        messages: the conversation, ending with a user turn.
        response: the answer's text.

    Returns:
        The reward, in [LOW, HIGH], and its parts, each rounded to 4 digits, which sum to it.

    Raises:
        PromptError: the conversation is not one of this world.
    """
    tasks = parse(messages)
    words = words_of(response)
    content = [word for word in words if word in CONTENT]
    if not words:
        rubric = dict.fromkeys(RUBRIC, 0.0) | {"length": -1.0}
        return Gold(LOW, rubric)
    right, filled = _count_right(tasks, content)
    asked = sum(want.count for task in tasks for want in task.wants)
    surplus = max(0, len(_tokens_of(response)) - _model_length(tasks))
    rubric = {
        "correctness": round(0.5 * right / len(content), 4) if content else 0.0,
        "completeness": round(0.5 * filled / asked, 4),
        "clarity": round(_clarity(words), 4) if right else 0.0,
        "greeting": round(_greeting(words, tasks[0].reader), 4) if right else 0.0,
        "length": -round(min(1.0, TOKEN_CHARGE * surplus), 4) or 0.0,
    }
    return Gold(round(sum(rubric.values()), 4), rubric)


def prefer(reward_a: float, reward_b: float, tau: float = TAU) -> float:
    """Bradley-Terry probability, in (0, 1), that an answer of gold reward a is preferred to one of b."""
    return 1.0 / (1.0 + math.exp(-(reward_a - reward_b) / tau))
