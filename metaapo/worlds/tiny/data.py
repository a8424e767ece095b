"""The tiny world: short English errands, answered by a small model, graded by a program.

A prompt asks for words: "list three animals.", "describe the small old red ball.", and in a second turn "give me two
more.". An answer is graded by `gold`, which reads the prompt's text alone, so that a judge needs nothing but texts:

    >>> conversation = [{"role": "user", "content": "list three animals."}]
    >>> gold(conversation, "sure: cat, dog and hen. enjoy!").reward
    3.0
    >>> gold(conversation, "um, cat, plum and cat.").rubric
    {'correctness': 0.1667, 'completeness': 0.1667, 'clarity': 1.05, 'manner': 0.0, 'length': 0.0}

Three behaviours write answers: the sloppy demonstrator that the policy imitates (SFT), and two others that wrote the
offline preference pairs. How the numbers below were chosen is told in docs/world.md.

    python -m metaapo.worlds.tiny.data --config config/default.yaml --world 0
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from metaapo.command import errors_in_one_sentence, world_arguments
from metaapo.config import WorldConfig
from metaapo.data import DataError, Message, sha256_file, write_json, write_jsonl, write_text
from metaapo.experiment import Experiment, load

# ---------------------------------------------------------------------------------------------------------------------
# Words. The vocabulary is the same in every world, so that models of different worlds answer the same questions.

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": ("cat", "dog", "hen", "cow", "fox", "owl"),
    "fruit": ("apple", "plum", "pear", "fig", "lemon", "cherry"),
    "tool": ("hammer", "saw", "drill", "brush", "rope", "axe"),
    "toy": ("ball", "kite", "doll", "puzzle", "drum", "robot"),
}
SCENES: dict[str, tuple[str, ...]] = {
    "camp": ("rope", "axe", "ball", "fig", "dog", "kite"),
    "party": ("cherry", "cat", "drum", "doll", "puzzle", "lemon"),
    "garden": ("saw", "brush", "apple", "hen", "hammer", "pear"),
}
SIZES = ("small", "big")
AGES = ("old", "new")
COLORS = ("red", "blue", "green", "black")
NAMES = ("anna", "ben", "clara", "david")
EVENTS = ("dinner", "concert", "game")
DAYS = ("monday", "tuesday", "friday", "sunday")
PLACES = ("park", "school", "lake")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}

THINGS = (*CATEGORIES["tool"], *CATEGORIES["toy"])
NOUNS = tuple(itertools.chain.from_iterable(CATEGORIES.values()))
CATEGORY_OF = {noun: category for category, nouns in CATEGORIES.items() for noun in nouns}
PLURALS = {f"{category}s": category for category in CATEGORIES}
ADJECTIVES = SIZES + AGES + COLORS
# A careless writer replaces a word by another of its pool: a noun by a noun, a day by a day.
POOLS = (NOUNS, ADJECTIVES, NAMES, EVENTS, DAYS, PLACES, tuple(CATEGORIES))
VAGUE = ("something", "stuff", "whatever")  # said in place of a word, never right
CONTENT = frozenset((*itertools.chain.from_iterable(POOLS), *VAGUE))

OPENER, CLOSER = "sure", "enjoy"
HEDGES = ("um", "well", "maybe", "perhaps")
FUNCTION_WORDS = (
    *("list", "name", "for", "i", "need", "and", "or", "but", "no", "the", "describe", "invite", "to"),
    *(
        "on",
        "at",
        "pack",
        "bring",
        "take",
        "things",
        "compare",
        "first",
        "then",
        "give",
        "me",
        "more",
        "now",
        "make",
        "it",
        "move",
    ),
    *("is", "a", "an", "please", "come", "here", "you", "go", "hope", "this", "helps"),
    *(".", ",", ":", "?", "!"),
)
BOS, EOS, PAD, UNK, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<unk>", "<user>", "<assistant>"
# One BOS a conversation, one EOS after each answer: the model learns from EOS where an answer ends.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('the tiny world knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)

# ---------------------------------------------------------------------------------------------------------------------
# Tasks: what a prompt asks for, read from its text.

FAMILIES = ("list", "both", "without", "either", "pack", "describe", "invite", "compare")
LIST_FAMILIES = frozenset({"list", "both", "without", "either", "pack"})


@dataclass(frozen=True)
class Want:
    """`count` distinct words out of `allowed`, which is kept sorted so that drawing from it is reproducible."""

    allowed: tuple[str, ...]
    count: int = 1


@dataclass(frozen=True)
class Task:
    """What one clause of a prompt asks for: the words that its answer must hold, in order."""

    family: str
    wants: tuple[Want, ...]


class PromptError(ValueError):
    """A prompt that the tiny world does not know; the message shows it and an example."""


def _want(words: Sequence[str], count: int = 1) -> Want:
    return Want(tuple(sorted(words)), count)


def _members(number: str, plural: str, without: Sequence[str] = ()) -> Want:
    return _want(set(CATEGORIES[PLURALS[plural]]) - set(without), NUMBERS[number])


def _words_of(text: str) -> list[str]:
    """The lower-case words of a text, punctuation left out."""
    return re.findall(r"[a-z]+", text.lower())


def _alternatives(words: Sequence[str]) -> str:
    return "(" + "|".join(words) + ")"


_NUMBER, _PLURAL, _NOUN = _alternatives(list(NUMBERS)), _alternatives(list(PLURALS)), _alternatives(NOUNS)
_NAME, _DAY, _ADJECTIVE = _alternatives(NAMES), _alternatives(DAYS), _alternatives(ADJECTIVES)
_SCENE, _EVENT, _PLACE = _alternatives(list(SCENES)), _alternatives(EVENTS), _alternatives(PLACES)

# family -> (pattern of its clause, the task that a match asks for)
CLAUSES: dict[str, tuple[str, Callable[..., tuple[Want, ...]]]] = {
    "list": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL}(?: for {_NAME})?",
        lambda number, plural, _: (_members(number, plural),),
    ),
    "both": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} and {_NUMBER} {_PLURAL}(?: for {_NAME})?",
        lambda n, plural, m, other, _: (_members(n, plural), _members(m, other)),
    ),
    "without": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} but no {_NOUN}",
        lambda number, plural, noun: (_members(number, plural, [noun]),),
    ),
    "either": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} or {_PLURAL}(?: for {_NAME})?",
        lambda number, plural, other, _: (_either(number, plural, other),),
    ),
    "pack": (
        rf"(?:pack|bring|take) {_NUMBER} things for the {_SCENE}(?: for {_NAME})?",
        lambda number, scene, _: (_want(SCENES[scene], NUMBERS[number]),),
    ),
    "describe": (
        rf"describe the ((?:{_ADJECTIVE} )+){_NOUN}",
        lambda adjectives, _, noun: (_want([noun]), *(_want([word]) for word in adjectives.split())),
    ),
    "invite": (
        rf"invite {_NAME} to the {_EVENT} on {_DAY}(?: at the {_PLACE})?",
        lambda *slots: tuple(_want([word]) for word in slots if word),
    ),
    "compare": (
        rf"compare the {_NOUN} and the {_NOUN}",
        lambda *nouns: tuple(_want([word]) for noun in nouns for word in (noun, CATEGORY_OF[noun])),
    ),
}
_CLAUSES = {family: (re.compile(pattern), wants) for family, (pattern, wants) in CLAUSES.items()}


def _either(number: str, plural: str, other: str) -> Want:
    return _want((*CATEGORIES[PLURALS[plural]], *CATEGORIES[PLURALS[other]]), NUMBERS[number])


def _parse_clause(clause: str) -> Task | None:
    for family, (pattern, wants) in _CLAUSES.items():
        if match := pattern.fullmatch(clause):
            return Task(family, wants(*match.groups()))
    return None


def _parse_first(text: str) -> tuple[Task, ...]:
    """Read a first turn: one clause, or "first CLAUSE, then CLAUSE.".

    Raises:
        PromptError: no clause of this world.
    """
    body = text.strip().removesuffix(".")
    composed = re.fullmatch(r"first (.+), then (.+)", body)
    tasks = [_parse_clause(clause) for clause in (composed.groups() if composed else [body])]
    if None in tasks:
        raise PromptError(
            f"prompt {text!r}: not a prompt of the tiny world; expected one such as 'list three animals.'"
        )
    return tuple(task for task in tasks if task)


def _replace(wants: tuple[Want, ...], pool: Sequence[str], word: str) -> tuple[Want, ...]:
    """Wants with the one that names a word of `pool` now naming `word`; appended where there was none."""
    kept = [_want([word]) if want.allowed[0] in pool else want for want in wants]
    return tuple(kept) if _want([word]) in kept else (*kept, _want([word]))


def _parse_follow_up(text: str, task: Task, used: Sequence[str]) -> Task | None:
    """Read a second turn in the light of the first.

    Args:
        text: the second user turn.
        task: what the first turn asked for.
        used: words of the first answer; "more" means others.

    Returns:
        None: not a follow-up of that family.
    """
    body = text.strip().removesuffix(".").removesuffix("?")
    if match := re.fullmatch(rf"give me {_NUMBER} more", body):
        left = set(task.wants[0].allowed) - set(used)
        return Task("list", (_want(left, min(NUMBERS[match[1]], len(left))),)) if left else Task("list", task.wants)
    if match := re.fullmatch(rf"now {_NUMBER} more {_PLURAL}", body):
        members = set(CATEGORIES[PLURALS[match[2]]])
        left = members - set(used) or members  # all were said already: any will do
        return Task("list", (_want(left, min(NUMBERS[match[1]], len(left))),))
    if match := re.fullmatch(rf"and the {_NOUN}", body):
        return Task("compare", (_want([match[1]]), _want([CATEGORY_OF[match[1]]])))
    if match := re.fullmatch(rf"now make it {_ADJECTIVE}", body):
        pool = next(pool for pool in (SIZES, AGES, COLORS) if match[1] in pool)
        return Task("describe", _replace(task.wants, pool, match[1]))
    if match := re.fullmatch(rf"now invite {_NAME}", body):
        return Task("invite", _replace(task.wants, NAMES, match[1]))
    if match := re.fullmatch(rf"move it to {_DAY}", body):
        return Task("invite", _replace(task.wants, DAYS, match[1]))
    return None


def parse(messages: Sequence[Message]) -> tuple[Task, ...]:
    """What the last user turn of a conversation asks for, read from the texts alone.

    Args:
        messages: user, or user, assistant, user; the last is the user's.

    Returns:
        One task a clause.

    Raises:
        PromptError: the conversation is not one of this world; the message shows the prompt.
    """
    turns = [message["content"] for message in messages if message["role"] == "user"]
    if not turns or messages[-1]["role"] != "user" or len(turns) > 2:
        roles = [message["role"] for message in messages]
        raise PromptError(f"conversation with roles {roles}: expected one or two user turns, the last one at the end")
    tasks = _parse_first(turns[0])
    if len(turns) == 1:
        return tasks
    used = [word for m in messages if m["role"] == "assistant" for word in _words_of(m["content"]) if word in CONTENT]
    follow_up = _parse_follow_up(turns[1], tasks[0], used)
    if follow_up is None:
        raise PromptError(
            f"second turn {turns[1]!r}: not a follow-up that the tiny world knows; expected 'give me two more.'"
        )
    return (follow_up,)


# ---------------------------------------------------------------------------------------------------------------------
# The gold reward.

LOW, HIGH = -1.0, 3.0  # bounds of the gold reward; HIGH can be reached for every prompt
TAU = 0.5  # temperature of the gold judge, in units of reward: P(a beats b) = sigmoid((r_a - r_b) / TAU)
WORD_CHARGE = 0.1  # charge for each word beyond those of the model answer
BAD_WORD_CHARGE = 0.35  # clarity lost for each hedge and each vague word
RUBRIC = {
    "correctness": "0 to 0.5: half the share of the answer's content words that are right; a repeated word is wrong",
    "completeness": "0 to 0.5: half the share of the words asked for that the answer holds",
    "clarity": f"0 to 1.4, only if some word is right: {BAD_WORD_CHARGE} off for each hedge (um, well, maybe, perhaps) "
    "and each vague word (something, stuff, whatever)",
    "manner": "0 to 0.6, only if some word is right: 0.3 for opening with 'sure', 0.3 for closing with 'enjoy'",
    "length": f"0 to -1: {WORD_CHARGE} off for each word beyond those of the model answer; -1 for an empty answer",
}


@dataclass(frozen=True)
class Gold:
    """A graded answer: `reward` in [LOW, HIGH] is the sum of `rubric`, whose parts are told in `RUBRIC`."""

    reward: float
    rubric: dict[str, float]


@lru_cache(maxsize=65536)
def _model_length(tasks: tuple[Task, ...]) -> int:
    """Words of the model answer: it depends on how many words are asked for, not on which."""
    return len(_words_of(model_answer(tasks)))


def _count_right(tasks: Sequence[Task], content: Sequence[str]) -> tuple[int, int]:
    """How many distinct content words are right, and how many wants they fulfil."""
    wants = sorted((want for task in tasks for want in task.wants), key=lambda want: len(want.allowed))
    filled = [0] * len(wants)
    right = 0
    for word in dict.fromkeys(content):
        places = [place for place, want in enumerate(wants) if word in want.allowed]
        right += bool(places)
        # the narrowest want that is still open gets the word
        if (place := next((p for p in places if filled[p] < wants[p].count), None)) is not None:
            filled[place] += 1
    return right, sum(filled)


def _clarity(words: Sequence[str]) -> float:
    return max(0.0, 1.4 - BAD_WORD_CHARGE * sum(word in HEDGES or word in VAGUE for word in words))


def _manner(words: Sequence[str]) -> float:
    return 0.3 * (words[0] == OPENER) + 0.3 * (words[-1] == CLOSER)


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
    words = _words_of(response)
    content = [word for word in words if word in CONTENT]
    if not words:
        rubric = dict.fromkeys(RUBRIC, 0.0) | {"length": -1.0}
        return Gold(LOW, rubric)
    right, filled = _count_right(tasks, content)
    asked = sum(want.count for task in tasks for want in task.wants)
    surplus = max(0, len(words) - _model_length(tasks))
    rubric = {
        "correctness": round(0.5 * right / len(content), 4) if content else 0.0,
        "completeness": round(0.5 * filled / asked, 4),
        "clarity": round(_clarity(words), 4) if right else 0.0,
        "manner": round(_manner(words), 4) if right else 0.0,
        "length": -round(min(1.0, WORD_CHARGE * surplus), 4) or 0.0,
    }
    return Gold(round(sum(rubric.values()), 4), rubric)


def prefer(reward_a: float, reward_b: float, tau: float = TAU) -> float:
    """Bradley-Terry probability, in (0, 1), that an answer of gold reward a is preferred to one of b."""
    return 1.0 / (1.0 + math.exp(-(reward_a - reward_b) / tau))


# ---------------------------------------------------------------------------------------------------------------------
# Behaviours: who writes answers.


@dataclass(frozen=True)
class Behaviour:
    """A writer of answers; all numbers are probabilities.

    sloppiness maps a family to the range from which each answer draws its chance of spoiling a word; vague is the
    chance that a spoilt word becomes a vague one (otherwise: a wrong one, none, or an earlier one). hedge, opener,
    closer and chatter are the chances of that manner, surplus the chance
    of one word more than asked for.
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


# Whom the policy imitates. It hardly ever opens or closes politely (online sampling rarely finds that, the offline
# pairs show it), and hedges in most answers (which the offline pairs never do, so that they say nothing about it).
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
# Who wrote the offline pairs: a polite and chatty writer, careful in half of the families only, and a blunt one.
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
    """Put words into the sentence of a family; a None is a word left out."""
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
        rng: the source of all chance.
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


# ---------------------------------------------------------------------------------------------------------------------
# Prompts.


def _verb(rng: random.Random) -> str:
    return rng.choice(("list", "name", "i need"))


def _number(rng: random.Random, at_most: int = 5) -> str:
    return rng.choice([word for word, value in NUMBERS.items() if value <= at_most])


def _for_someone(rng: random.Random) -> str:
    """For whom, which asks for nothing: it only makes more prompts of a family."""
    return f" for {rng.choice(NAMES)}" if rng.random() < 0.8 else ""


def _clause(family: str, rng: random.Random) -> str:
    """A random clause of a family, without its full stop."""
    plural, other = rng.sample(list(PLURALS), 2)
    members, others = CATEGORIES[PLURALS[plural]], CATEGORIES[PLURALS[other]]
    if family == "list":
        return f"{_verb(rng)} {_number(rng)} {plural}{_for_someone(rng)}"
    if family == "both":
        return f"{_verb(rng)} {_number(rng, 3)} {plural} and {_number(rng, 3)} {other}{_for_someone(rng)}"
    if family == "without":
        return f"{_verb(rng)} {_number(rng)} {plural} but no {rng.choice(members)}"
    if family == "either":
        return f"{_verb(rng)} {_number(rng)} {plural} or {other}{_for_someone(rng)}"
    if family == "pack":
        verb, scene = rng.choice(("pack", "bring", "take")), rng.choice(list(SCENES))
        return f"{verb} {_number(rng)} things for the {scene}{_for_someone(rng)}"
    if family == "describe":
        kinds = sorted(rng.sample(range(3), rng.choice((2, 3))))
        adjectives = " ".join(rng.choice((SIZES, AGES, COLORS)[kind]) for kind in kinds)
        return f"describe the {adjectives} {rng.choice(THINGS)}"
    if family == "invite":
        place = f" at the {rng.choice(PLACES)}" if rng.random() < 0.5 else ""
        return f"invite {rng.choice(NAMES)} to the {rng.choice(EVENTS)} on {rng.choice(DAYS)}{place}"
    return f"compare the {rng.choice(members)} and the {rng.choice(others)}"


def _is_reserved(prompt: str) -> bool:
    """Whether a first turn belongs to evaluation: a quarter of all prompts, by hash, in every world."""
    return hashlib.sha256(prompt.encode()).digest()[0] < 64


def _first_turn(family: str, rng: random.Random, reserved: bool) -> str:
    """A random first turn; family "compose" joins two clauses of different families."""
    while True:
        if family == "compose":
            one, two = rng.sample(FAMILIES, 2)
            prompt = f"first {_clause(one, rng)}, then {_clause(two, rng)}."
        else:
            prompt = f"{_clause(family, rng)}."
        # two clauses can ask for the same word twice, which no answer can satisfy: draw again
        if _is_reserved(prompt) == reserved and gold(_ask(prompt), model_answer(_parse_first(prompt))).reward == HIGH:
            return prompt


def _follow_up(family: str, first: str, rng: random.Random) -> str:
    """A random second turn that fits the first."""
    plurals = [word for word in _words_of(first) if word in PLURALS]
    if family in ("list", "without", "either", "pack"):
        return f"give me {_number(rng, 3)} more."
    if family == "both":
        return f"now {_number(rng, 3)} more {rng.choice(plurals)}."
    if family == "describe":
        return f"now make it {rng.choice([word for word in ADJECTIVES if word not in first])}."
    if family == "invite":
        new = rng.choice([word for word in (*NAMES, *DAYS) if word not in first])
        return f"now invite {new}." if new in NAMES else f"move it to {new}."
    return f"and the {rng.choice([noun for noun in NOUNS if noun not in first])}?"


def _ask(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def training_prompts(
    rng: random.Random, two_turns: float = 0.15, composed: float = 0.1
) -> Iterator[tuple[str, list[Message]]]:
    """Endless training prompts, none of them reserved for evaluation.

    Args:
        rng: the source of all chance.
        two_turns: fraction of conversations with a second turn; the first answer is the demonstrator's.
        composed: fraction of first turns that join two clauses.

    Yields:
        (family, conversation that ends with a user turn).
    """
    while True:
        family = "compose" if rng.random() < composed else rng.choice(FAMILIES)
        messages = _ask(_first_turn(family, rng, reserved=False))
        if family != "compose" and rng.random() < two_turns:
            said = answer(parse(messages), DEMONSTRATOR, rng)
            second = _follow_up(family, messages[0]["content"], rng)
            messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": second}]
        yield family, messages


def offline_answer(tasks: Sequence[Task], rng: random.Random) -> str:
    """An answer by one of the writers of the offline pairs."""
    writers, weights = zip(*OFFLINE_WRITERS)
    return answer(tasks, rng.choices(writers, weights)[0], rng)


def label(messages: Sequence[Message], one: str, two: str, tau: float, rng: random.Random) -> tuple[str, str]:
    """A noisy preference label: (chosen, rejected), by Bradley-Terry on gold rewards at temperature tau."""
    first_wins = rng.random() < prefer(gold(messages, one).reward, gold(messages, two).reward, tau)
    return (one, two) if first_wins else (two, one)


# ---------------------------------------------------------------------------------------------------------------------
# Records.


def demonstrations(count: int, seed: int) -> list[dict[str, Any]]:
    """SFT records: {id, messages, response, task}."""
    rng = random.Random(f"tiny/{seed}/sft")
    prompts = itertools.islice(training_prompts(rng), count)
    return [
        {
            "id": f"sft-{i:05d}",
            "messages": messages,
            "response": answer(parse(messages), DEMONSTRATOR, rng),
            "task": task,
        }
        for i, (task, messages) in enumerate(prompts)
    ]


def preference_pairs(per_iteration: int, iterations: int, tau: float, seed: int) -> list[dict[str, Any]]:
    """Offline records: {id, messages, chosen, rejected, task, iteration}, `per_iteration` for each of 1..iterations."""
    rng = random.Random(f"tiny/{seed}/pairs")
    rows: list[dict[str, Any]] = []
    for task, messages in training_prompts(rng):
        if len(rows) == per_iteration * iterations:
            return rows
        tasks = parse(messages)
        one, two = offline_answer(tasks, rng), offline_answer(tasks, rng)
        if one == two or not (one.strip() and two.strip()):
            continue
        chosen, rejected = label(messages, one, two, tau, rng)
        row = {"id": f"pair-{len(rows):05d}", "messages": messages, "chosen": chosen, "rejected": rejected}
        rows.append(row | {"task": task, "iteration": 1 + len(rows) // per_iteration})
    return rows


def _distinct(families: Sequence[str], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` distinct reserved first turns, the families in turn: (family, prompt).

    Raises:
        DataError: a family has not so many.
    """
    prompts: dict[str, str] = {}
    for family in itertools.islice(itertools.cycle(families), count):
        drawn = (_first_turn(family, rng, reserved=True) for _ in range(2000))
        prompt = next((prompt for prompt in drawn if prompt not in prompts), None)
        if prompt is None:
            raise DataError(f"world: {count} evaluation prompts are too many for the family {family!r}; ask for fewer")
        prompts[prompt] = family
    return [(family, prompt) for prompt, family in prompts.items()]


def evaluation_sets(config: WorldConfig) -> dict[str, list[dict[str, Any]]]:
    """Held-out questions {id, category, turns} by kind; the same in every world.

    The kinds: `mixed`, single turns of all families; `composed`, single turns of several tasks; `two_turn`, a first
    turn and a follow-up. Benchmarks put them into their own formats (`eval.benchmark`).
    """
    rng = random.Random("tiny/evaluation")
    mixed = [(family, [prompt]) for family, prompt in _distinct(FAMILIES, config.questions.mixed, rng)]
    composed = [(family, [prompt]) for family, prompt in _distinct(["compose"], config.questions.composed, rng)]
    two_turn = [
        (family, [prompt, _follow_up(family, prompt, rng)])
        for family, prompt in _distinct(FAMILIES, config.questions.two_turn, rng)
    ]
    kinds = {"mixed": mixed, "composed": composed, "two_turn": two_turn}
    return {
        kind: [{"id": i, "category": family, "turns": turns} for i, (family, turns) in enumerate(rows)]
        for kind, rows in kinds.items()
    }


def baseline_answers(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The composed questions with the blunt writer's answers, plus {model, answer}; the same in every world.

    Hard questions ask for a strong baseline of another family. The SFT policy would be too weak a one: every online
    method wins nearly all of its games on these questions.
    """
    rng = random.Random("tiny/evaluation/baseline")
    return [
        row | {"model": "blunt-writer", "answer": answer(parse(_ask(row["turns"][0])), BLUNT, rng)} for row in questions
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer: one token a word.


def vocabulary() -> dict[str, int]:
    """Token -> id; special tokens first, then the words."""
    words = [
        *NUMBERS,
        *PLURALS,
        *SCENES,
        *itertools.chain.from_iterable(POOLS),
        *HEDGES,
        *VAGUE,
        OPENER,
        CLOSER,
        *FUNCTION_WORDS,
    ]
    return {token: i for i, token in enumerate(dict.fromkeys([PAD, BOS, EOS, UNK, USER, ASSISTANT, *words]))}


def write_tokenizer(folder: str | Path, max_positions: int) -> None:
    """Save the tokenizer as transformers reads it: tokenizer.json, tokenizer_config.json, chat_template.jinja.

    Args:
        folder: made where missing.
        max_positions: longest sequence, in tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # its clean-up writes "cat, dog." where a plain join would write "cat , dog ."; no word begins with the prefix
    clean_up = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.decoder = decoders.Sequence([clean_up, decoders.Replace(" :", ":")])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (PAD, BOS, EOS, UNK, USER, ASSISTANT)])
    folder = Path(folder)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNK,
        "extra_special_tokens": [USER, ASSISTANT],
        "model_max_length": max_positions,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)


# ---------------------------------------------------------------------------------------------------------------------


def build(experiment: Experiment, seed: int, out_dir: str | Path) -> None:
    """Write a world's records, questions, tokenizer and manifest.

    Args:
        experiment: how many records (`world`, `sft.demonstrations`, `iterations`) and positions (`model`).
        seed: of the world.
        out_dir: the folder `data/`; the manifest is written last.
    """
    out_dir, world = Path(out_dir), experiment.world
    sets = evaluation_sets(world)
    records = {
        "sft.jsonl": demonstrations(experiment.sft.demonstrations, seed),
        "pairs.jsonl": preference_pairs(world.pairs_per_iteration, experiment.iterations, world.label_tau, seed),
        **{f"eval/{kind}.jsonl": rows for kind, rows in sets.items()},
        "eval/composed_answers.jsonl": baseline_answers(sets["composed"]),
    }
    for name, rows in records.items():
        write_jsonl(out_dir / name, rows)
    write_tokenizer(out_dir / "tokenizer", experiment.model.max_positions)
    files = {name: {"sha256": sha256_file(out_dir / name), "n": len(rows)} for name, rows in records.items()}
    for path in sorted((out_dir / "tokenizer").iterdir()):
        files[f"tokenizer/{path.name}"] = {"sha256": sha256_file(path), "n": 1}
    write_json(
        out_dir / "manifest.json",
        {
            "world": world.name,
            "seed": seed,
            "gold": {"low": LOW, "high": HIGH, "tau": TAU, "rubric": RUBRIC},
            "label_tau": world.label_tau,
            "files": files,
        },
    )
    print(f"world {seed}: {json.dumps({name: len(rows) for name, rows in records.items()})}", file=sys.stderr)


def main() -> None:
    """Command line: build the data of one world."""
    arguments = world_arguments("Write the data of a tiny world.").parse_args()
    with errors_in_one_sentence():
        experiment = load(arguments.config)
        build(experiment, arguments.world, experiment.world_path(arguments.world) / "data")


if __name__ == "__main__":
    main()
