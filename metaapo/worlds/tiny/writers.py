"""The writers of the tiny world: their behaviours and answers.

Three behaviours write answers: the sloppy demonstrator that the policy imitates (SFT), and two others that wrote the
offline preference pairs. docs/world.md explains how the numbers below were chosen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from metaapo.worlds.tiny.tasks import CLOSER, FAMILIES, HEDGES, LIST_FAMILIES, OPENER, POOLS, VAGUE, Task


@dataclass(frozen=True)
class Behaviour:
    """A writer of answers; all numbers are probabilities.

    sloppiness maps a family to the range from which each answer draws its chance of spoiling a word; vague is the
    chance that a spoilt word becomes a vague one (otherwise: a wrong one, none, or an earlier one). hedge, opener,
    closer and chatter are the chances of those mannerisms, and surplus is the chance
    of one extra word.
    """

    name: str
    sloppiness: dict[str, tuple[float, float]]
    vague: float = 0.0
    hedge: float = 0.0
    opener: float = 0.0
    closer: float = 0.0
    chatter: float = 0.0
    surplus: float = 0.0


def _everywhere(low: float, high: float) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(FAMILIES, (low, high))


# The writer that the policy imitates. It rarely opens or closes politely (so online sampling rarely finds this, but the
# offline pairs show it), and it hedges in most answers (which the offline pairs never do, so they cannot teach it).
DEMONSTRATOR = Behaviour(
    "demonstrator",
    {family: (0.1, 0.5) if family in LIST_FAMILIES else (0.05, 0.3) for family in FAMILIES},
    vague=0.6,
    hedge=0.6,
    opener=0.04,
    closer=0.04,
    chatter=0.04,
    surplus=0.1,
)
# The writers of the offline pairs: a polite and chatty one, careful in only half of the families, and a blunt one.
POLITE = Behaviour(
    "polite",
    {family: (0.0, 0.1) if family not in LIST_FAMILIES or family == "pack" else (0.2, 0.6) for family in FAMILIES},
    opener=0.7,
    closer=0.7,
    chatter=0.3,
)
BLUNT = Behaviour("blunt", _everywhere(0.1, 0.4), surplus=0.2)
OFFLINE_WRITERS = ((POLITE, 0.6), (BLUNT, 0.4))


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _invitation(words: Sequence[str | None]) -> str:
    name, event, day, place = [*words, None, None][:4]
    parts = [
        f"{name}, please come" if name else "please come",
        f"to the {event}" if event else "",
        f"on {day}" if day else "",
        f"at the {place}" if place else "",
    ]
    return " ".join(part for part in parts if part) + "."


def _comparison(words: Sequence[str | None]) -> str:
    pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
    parts = [
        (f"the {noun}" if noun else "it") + (f" is {_article(category)}" if category else "")
        for noun, category in pairs
        if noun or category
    ]
    return ", ".join(parts) + "." if parts else ""


def _sentence(family: str, words: Sequence[str | None]) -> str:
    """Build a family's sentence from words; None stands for an omitted word."""
    if family == "invite":
        return _invitation(words)
    if family == "compare":
        return _comparison(words)
    if family == "describe":
        noun, *adjectives = words
        kept = _join([word for word in adjectives if word])
        return f"{f'the {noun}' if noun else 'it'} is {kept}." if kept else (f"the {noun}." if noun else "")
    kept = _join([word for word in words if word])
    return kept + "." if kept else ""


def _spoil(
    word: str, allowed: Sequence[str], earlier: Sequence[str | None], family: str, vague: float, rng: random.Random
) -> str | None:
    """A vague word, no word, an earlier word or a wrong word in place of the right one."""
    if rng.random() < vague:
        return rng.choice(VAGUE)
    kind = rng.random()
    if kind < 0.3:
        return None
    used = [w for w in earlier if w]
    if kind < 0.5 and used and family in LIST_FAMILIES:
        return rng.choice(used)
    pool = next(pool for pool in POOLS if word in pool)
    return rng.choice([other for other in pool if other not in allowed])


def _draw_words(
    task: Task, sloppiness: float, writer: Behaviour, used: set[str], rng: random.Random
) -> list[str | None]:
    words: list[str | None] = []
    for want in task.wants:
        extra = task.family in LIST_FAMILIES and rng.random() < writer.surplus
        fresh = [word for word in want.allowed if word not in used]
        chosen = rng.sample(fresh, min(len(fresh), want.count + extra))
        words += [None] * (want.count - len(chosen))
        used.update(chosen)
        for word in chosen:
            spoilt = rng.random() < sloppiness
            words.append(_spoil(word, want.allowed, words, task.family, writer.vague, rng) if spoilt else word)
    return words


def _hedge(rng: random.Random) -> str:
    return " ".join(f"{word}," for word in rng.sample(HEDGES, rng.choice((1, 2))))


def answer(tasks: Sequence[Task], writer: Behaviour, rng: random.Random) -> str:
    """Write an answer as `writer` would.

    Args:
        tasks: from `parse`.
        writer: whose manner and sloppiness.
        rng: the source of randomness.
    """
    used: set[str] = set()
    sentences = []
    for task in tasks:
        sloppiness = rng.uniform(*writer.sloppiness[task.family])
        sentences.append(_sentence(task.family, _draw_words(task, sloppiness, writer, used, rng)))
    parts = [
        f"{OPENER}:" if rng.random() < writer.opener else "",
        "here you go:" if rng.random() < writer.chatter else "",
        _hedge(rng) if rng.random() < writer.hedge else "",
        *sentences,
        "i hope this helps." if rng.random() < writer.chatter else "",
        f"{CLOSER}!" if rng.random() < writer.closer else "",
    ]
    return " ".join(part for part in parts if part)


_MODEL = Behaviour("model", _everywhere(0.0, 0.0), opener=1.0, closer=1.0)


def model_answer(tasks: Sequence[Task]) -> str:
    """An answer that earns the highest reward, the same at every call."""
    return answer(tasks, _MODEL, random.Random(0))


def offline_answer(tasks: Sequence[Task], rng: random.Random) -> str:
    """An answer by one of the writers of the offline pairs."""
    writers, weights = zip(*OFFLINE_WRITERS)
    return answer(tasks, rng.choices(writers, weights)[0], rng)
