"""The writers of the tiny world: their behaviours, their beliefs about readers, and their answers.

The policy imitates the demonstrator (SFT), whose beliefs about what readers want are outdated. Four writers of
different quality wrote the offline preference pairs; they know what most readers want, but not what the newcomers do.
docs/world.md explains how the numbers below were chosen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaapo.worlds.tiny.tasks import FAMILIES, GREETINGS, HEDGES, LIST_FAMILIES, POOLS, READERS, VAGUE, WANTED, Task

SHOWN = 0.5  # share of the readers whose wishes the offline writers know; the others are newcomers to them

# What a writer believes about readers: reader -> greeting.
Beliefs = Mapping[str, str]


@dataclass(frozen=True)
class Behaviour:
    """A writer of answers; all numbers are probabilities.

    Attributes:
        name: of the writer.
        sloppiness: family -> range from which each answer draws its chance of spoiling a word.
        vague: a spoilt word becomes a vague one (otherwise a wrong one, or none).
        hedge: the answer hedges.
        greets: the answer opens with a greeting.
        follows: the greeting is the one that the writer believes the reader wants; otherwise it is a random other.
        luck: a greeting that contradicts a wrong belief is what the reader wants.
        chatter: a stock phrase precedes the answer; likewise one follows it.
        surplus: a list has one word more than asked for.
    """

    name: str
    sloppiness: dict[str, tuple[float, float]]
    vague: float = 0.0
    hedge: float = 0.0
    greets: float = 0.0
    follows: float = 0.0
    luck: float = 0.0
    chatter: float = 0.0
    surplus: float = 0.0


def _everywhere(low: float, high: float) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(FAMILIES, (low, high))


# The writer that the policy imitates. It uses every greeting with every reader, so preferences only change how often.
# Its beliefs, though wrong, teach the policy to look at the reader.
DEMONSTRATOR = Behaviour(
    "demonstrator",
    {family: (0.1, 0.5) if family in LIST_FAMILIES else (0.05, 0.3) for family in FAMILIES},
    vague=0.8,
    hedge=0.4,
    greets=0.95,
    follows=0.6,
    luck=0.6,
    chatter=0.04,
    surplus=0.1,
)
# The writers of the offline pairs. Each writes one answer to every prompt; the best is paired with a random other.
EXPERT = Behaviour("expert", _everywhere(0.0, 0.1), greets=0.95, follows=0.9)
CAREFUL = Behaviour("careful", _everywhere(0.05, 0.3), vague=0.8, hedge=0.1, greets=0.9, follows=0.7)
CASUAL = Behaviour("casual", _everywhere(0.1, 0.5), vague=0.8, hedge=0.4, greets=0.9, follows=0.4, surplus=0.1)
CHATTY = Behaviour(
    "chatty", _everywhere(0.1, 0.5), vague=0.8, hedge=0.3, greets=0.9, follows=0.4, chatter=0.4, surplus=0.2
)
OFFLINE_WRITERS = (EXPERT, CAREFUL, CASUAL, CHATTY)


def outdated_beliefs(seed: int) -> dict[str, str]:
    """What the demonstrator of a world believes: for every reader a greeting that the reader does not want.

    For the four readers who want one greeting, the three others are believed in turn, in random order, so no rule
    leads from a belief to the wish: each reader must be learned on its own.
    """
    rng = random.Random(f"tiny/{seed}/beliefs")
    beliefs = {}
    for wanted in GREETINGS:
        readers = [reader for reader in READERS if WANTED[reader] == wanted]
        wrong = [greeting for greeting in GREETINGS if greeting != wanted]
        rng.shuffle(readers)
        rng.shuffle(wrong)
        beliefs |= {reader: wrong[i % len(wrong)] for i, reader in enumerate(readers)}
    return beliefs


def newcomers(seed: int, shown: float = SHOWN) -> frozenset[str]:
    """The readers of a world whom the offline writers do not know, equally many for each wanted greeting.

    Args:
        seed: the world's.
        shown: share of the readers whom they know, a multiple of 1/4.
    """
    rng = random.Random(f"tiny/{seed}/newcomers")
    groups = [[reader for reader in READERS if WANTED[reader] == greeting] for greeting in GREETINGS]
    return frozenset(reader for group in groups for reader in rng.sample(group, round((1 - shown) * len(group))))


def offline_beliefs(seed: int, shown: float = SHOWN) -> dict[str, str]:
    """What the offline writers of a world believe: the truth, but the demonstrator's beliefs about newcomers."""
    outdated = outdated_beliefs(seed)
    return WANTED | {reader: outdated[reader] for reader in newcomers(seed, shown)}


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


def _spoil(word: str, allowed: Sequence[str], vague: float, rng: random.Random) -> str | None:
    """A vague word, no word or a wrong word in place of the right one."""
    if rng.random() < vague:
        return rng.choice(VAGUE)
    if rng.random() < 0.3:
        return None
    pool = next(pool for pool in POOLS if word in pool)
    return rng.choice([other for other in pool if other not in allowed])


def _draw_words(
    task: Task, sloppiness: float, writer: Behaviour, used: set[str], rng: random.Random
) -> list[str | None]:
    words: list[str | None] = []
    for want in task.wants:
        extra = task.family in LIST_FAMILIES and rng.random() < writer.surplus
        fresh = [word for word in want.allowed if word not in used]
        # In alphabetical order, so that a policy learns to say nothing twice.
        chosen = sorted(rng.sample(fresh, min(len(fresh), want.count + extra)))
        words += [None] * (want.count - len(chosen))
        used.update(chosen)
        for word in chosen:
            spoilt = rng.random() < sloppiness
            words.append(_spoil(word, want.allowed, writer.vague, rng) if spoilt else word)
    return words


def _hedge(rng: random.Random) -> str:
    return " ".join(f"{word}," for word in rng.sample(HEDGES, rng.choice((1, 2))))


def _greeting(reader: str, writer: Behaviour, beliefs: Beliefs, rng: random.Random) -> str:
    """The greeting that the writer believes in, or another one."""
    believed, wanted = beliefs[reader], WANTED[reader]
    if rng.random() < writer.follows:
        return believed
    if believed != wanted and rng.random() < writer.luck:
        return wanted
    return rng.choice([greeting for greeting in GREETINGS if greeting not in (believed, wanted)])


def answer(tasks: Sequence[Task], writer: Behaviour, rng: random.Random, beliefs: Beliefs = WANTED) -> str:
    """Write an answer as `writer` would.

    Args:
        tasks: from `parse`.
        writer: whose manner and sloppiness.
        rng: the source of randomness.
        beliefs: what the writer believes about readers.
    """
    used: set[str] = set()
    sentences = []
    for task in tasks:
        sloppiness = rng.uniform(*writer.sloppiness[task.family])
        sentences.append(_sentence(task.family, _draw_words(task, sloppiness, writer, used, rng)))
    parts = [
        f"{_greeting(tasks[0].reader, writer, beliefs, rng)}:" if rng.random() < writer.greets else "",
        "here you go:" if rng.random() < writer.chatter else "",
        _hedge(rng) if rng.random() < writer.hedge else "",
        *sentences,
        "i hope this helps." if rng.random() < writer.chatter else "",
    ]
    return " ".join(part for part in parts if part)


_MODEL = Behaviour("model", _everywhere(0.0, 0.0), greets=1.0, follows=1.0)


def model_answer(tasks: Sequence[Task]) -> str:
    """An answer that earns the highest reward, the same at every call."""
    return answer(tasks, _MODEL, random.Random(0))


def offline_answers(tasks: Sequence[Task], rng: random.Random, beliefs: Beliefs) -> list[str]:
    """One answer by each of the offline writers."""
    return [answer(tasks, writer, rng, beliefs) for writer in OFFLINE_WRITERS]


def spoil(text: str, rng: random.Random) -> str:
    """A degenerate version of an answer, as written by policies that follow a reward model too far."""
    tokens = re.findall(r"[a-z]+|[^a-z ]", text.lower()) or [GREETINGS[0]]
    start = rng.randrange(len(tokens))
    piece = tokens[start : start + rng.randint(1, 4)]
    loop = piece * rng.randint(2, max(2, 24 // len(piece)))
    spoilt = rng.choice(
        [
            loop,
            [*tokens[:start], *loop, *tokens[start:]],  # a loop in the middle
            [*tokens[:start], *loop],  # a loop instead of an end
            [*(mark for _ in range(rng.randint(1, 6)) for mark in (rng.choice(GREETINGS), ":")), *tokens],
            [*tokens, *tokens],
        ]
    )
    return re.sub(r" (?=[.,:!?])", "", " ".join(spoilt))
