"""The grammar of the tiny world: its vocabulary, what a prompt asks for, and random prompts.

    >>> task = parse([{"role": "user", "content": "list two animals, baker."}])[0]
    >>> task.family, task.reader
    ('list', 'baker')

Every prompt ends with the reader who asks. Readers differ in how they want to be greeted.

The vocabulary is the same in every world, so that models from different worlds can answer the same questions.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metaapo.data import Message

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
NUMBERS = {"two": 2, "three": 3, "four": 4}

THINGS = (*CATEGORIES["tool"], *CATEGORIES["toy"])
NOUNS = tuple(itertools.chain.from_iterable(CATEGORIES.values()))
CATEGORY_OF = {noun: category for category, nouns in CATEGORIES.items() for noun in nouns}
PLURALS = {f"{category}s": category for category in CATEGORIES}
ADJECTIVES = SIZES + AGES + COLORS
# A careless writer replaces a word with another from its pool: a noun with a noun, a day with a day.
POOLS = (NOUNS, ADJECTIVES, NAMES, EVENTS, DAYS, PLACES, tuple(CATEGORIES))
VAGUE = ("something", "stuff", "whatever")  # used in place of a word, never right
CONTENT = frozenset((*itertools.chain.from_iterable(POOLS), *VAGUE))

# Who asks, and how each reader wants to be greeted. Every greeting is wanted by four readers, so none is right more
# often than another, and each reader's wish must be learned on its own.
READERS = (
    *("potter", "sailor", "waiter", "nurse", "barber", "miner", "writer", "hunter"),
    *("tailor", "baker", "doctor", "judge", "painter", "ranger", "actor", "dancer"),
)
GREETINGS = ("sure", "hello", "gladly", "okay")
WANTED = {reader: GREETINGS[i % len(GREETINGS)] for i, reader in enumerate(READERS)}
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

FAMILIES = ("list", "both", "without", "either", "pack", "describe", "invite", "compare")
LIST_FAMILIES = frozenset({"list", "both", "without", "either", "pack"})


@dataclass(frozen=True)
class Want:
    """`count` distinct words out of `allowed`, which is kept sorted so that drawing from it is reproducible."""

    allowed: tuple[str, ...]
    count: int = 1


@dataclass(frozen=True)
class Task:
    """What one clause of a prompt asks for: the words that its answer must hold, in order, and who asks."""

    family: str
    wants: tuple[Want, ...]
    reader: str


class PromptError(ValueError):
    """A prompt outside the tiny world's grammar; the message shows it and a valid example."""


def _want(words: Sequence[str], count: int = 1) -> Want:
    return Want(tuple(sorted(words)), count)


def _members(number: str, plural: str, without: Sequence[str] = ()) -> Want:
    return _want(set(CATEGORIES[PLURALS[plural]]) - set(without), NUMBERS[number])


def words_of(text: str) -> list[str]:
    """The lower-case words of a text, without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def _alternatives(words: Sequence[str]) -> str:
    return "(" + "|".join(words) + ")"


_NUMBER, _PLURAL, _NOUN = _alternatives(list(NUMBERS)), _alternatives(list(PLURALS)), _alternatives(NOUNS)
_NAME, _DAY, _ADJECTIVE = _alternatives(NAMES), _alternatives(DAYS), _alternatives(ADJECTIVES)
_SCENE, _EVENT, _PLACE = _alternatives(list(SCENES)), _alternatives(EVENTS), _alternatives(PLACES)

# family -> (pattern of its clause, the task that a match asks for)
CLAUSES: dict[str, tuple[str, Callable[..., tuple[Want, ...]]]] = {
    "list": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL}",
        lambda number, plural: (_members(number, plural),),
    ),
    "both": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} and {_NUMBER} {_PLURAL}",
        lambda n, plural, m, other: (_members(n, plural), _members(m, other)),
    ),
    "without": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} but no {_NOUN}",
        lambda number, plural, noun: (_members(number, plural, [noun]),),
    ),
    "either": (
        rf"(?:list|name|i need) {_NUMBER} {_PLURAL} or {_PLURAL}",
        lambda number, plural, other: (_either(number, plural, other),),
    ),
    "pack": (
        rf"(?:pack|bring|take) {_NUMBER} things for the {_SCENE}",
        lambda number, scene: (_want(SCENES[scene], NUMBERS[number]),),
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


def _parse_clause(clause: str, reader: str) -> Task | None:
    for family, (pattern, wants) in _CLAUSES.items():
        if match := pattern.fullmatch(clause):
            return Task(family, wants(*match.groups()), reader)
    return None


def parse_first(text: str) -> tuple[Task, ...]:
    """Read a first turn: "CLAUSE, READER." or "first CLAUSE, then CLAUSE, READER.".

    Raises:
        PromptError: a clause or the reader is not in this world's grammar.
    """
    body, _, reader = text.strip().removesuffix(".").rpartition(", ")
    composed = re.fullmatch(r"first (.+), then (.+)", body)
    tasks = [_parse_clause(clause, reader) for clause in (composed.groups() if composed else [body])]
    if None in tasks or reader not in WANTED:
        raise PromptError(
            f"prompt {text!r}: not a prompt of the tiny world; expected one such as 'list three animals, baker.'"
        )
    return tuple(task for task in tasks if task)


def _replace(wants: tuple[Want, ...], pool: Sequence[str], word: str) -> tuple[Want, ...]:
    """Wants with the one that names a word of `pool` now naming `word`; appended if there was none."""
    kept = [_want([word]) if want.allowed[0] in pool else want for want in wants]
    return tuple(kept) if _want([word]) in kept else (*kept, _want([word]))


def _parse_follow_up(text: str, task: Task, used: Sequence[str]) -> Task | None:
    """Read a second turn in the light of the first.

    Args:
        text: the second user turn.
        task: what the first turn asked for.
        used: words of the first answer; "more" means others.

    Returns:
        the task, or None if the text is not a follow-up of that family.
    """
    body = text.strip().removesuffix(".").removesuffix("?").removesuffix(f", {task.reader}")
    if match := re.fullmatch(rf"give me {_NUMBER} more", body):
        left = set(task.wants[0].allowed) - set(used)
        wants = (_want(left, min(NUMBERS[match[1]], len(left))),) if left else task.wants
        return replace(task, family="list", wants=wants)
    if match := re.fullmatch(rf"now {_NUMBER} more {_PLURAL}", body):
        members = set(CATEGORIES[PLURALS[match[2]]])
        left = members - set(used) or members  # all were used already, so any will do
        return replace(task, family="list", wants=(_want(left, min(NUMBERS[match[1]], len(left))),))
    if match := re.fullmatch(rf"and the {_NOUN}", body):
        return replace(task, wants=(_want([match[1]]), _want([CATEGORY_OF[match[1]]])))
    if match := re.fullmatch(rf"now make it {_ADJECTIVE}", body):
        pool = next(pool for pool in (SIZES, AGES, COLORS) if match[1] in pool)
        return replace(task, wants=_replace(task.wants, pool, match[1]))
    if match := re.fullmatch(rf"now invite {_NAME}", body):
        return replace(task, wants=_replace(task.wants, NAMES, match[1]))
    if match := re.fullmatch(rf"move it to {_DAY}", body):
        return replace(task, wants=_replace(task.wants, DAYS, match[1]))
    return None


def parse(messages: Sequence[Message]) -> tuple[Task, ...]:
    """What the last user turn of a conversation asks for, read from the texts alone.

    Args:
        messages: user, or user, assistant, user; the last is the user's.

    Returns:
        One task per clause.

    Raises:
        PromptError: the conversation is not one of this world; the message shows the prompt.
    """
    turns = [message["content"] for message in messages if message["role"] == "user"]
    if not turns or messages[-1]["role"] != "user" or len(turns) > 2:
        roles = [message["role"] for message in messages]
        raise PromptError(f"conversation with roles {roles}: expected one or two user turns, the last one at the end")
    tasks = parse_first(turns[0])
    if len(turns) == 1:
        return tasks
    used = [word for m in messages if m["role"] == "assistant" for word in words_of(m["content"]) if word in CONTENT]
    follow_up = _parse_follow_up(turns[1], tasks[0], used)
    if follow_up is None:
        raise PromptError(
            f"second turn {turns[1]!r}: not a follow-up that the tiny world knows; expected 'give me two more, baker.'"
        )
    return (follow_up,)


# ---------------------------------------------------------------------------------------------------------------------
# Random prompts.


def _verb(rng: random.Random) -> str:
    return rng.choice(("list", "name", "i need"))


def _number(rng: random.Random, at_most: int = 4) -> str:
    return rng.choice([word for word, value in NUMBERS.items() if value <= at_most])


def random_clause(family: str, rng: random.Random) -> str:
    """A random clause of a family, without its full stop."""
    plural, other = rng.sample(list(PLURALS), 2)
    members, others = CATEGORIES[PLURALS[plural]], CATEGORIES[PLURALS[other]]
    if family == "list":
        return f"{_verb(rng)} {_number(rng)} {plural}"
    if family == "both":
        return f"{_verb(rng)} {_number(rng, 3)} {plural} and {_number(rng, 3)} {other}"
    if family == "without":
        return f"{_verb(rng)} {_number(rng)} {plural} but no {rng.choice(members)}"
    if family == "either":
        return f"{_verb(rng)} {_number(rng)} {plural} or {other}"
    if family == "pack":
        verb, scene = rng.choice(("pack", "bring", "take")), rng.choice(list(SCENES))
        return f"{verb} {_number(rng)} things for the {scene}"
    if family == "describe":
        kinds = sorted(rng.sample(range(3), rng.choice((2, 3))))
        adjectives = " ".join(rng.choice((SIZES, AGES, COLORS)[kind]) for kind in kinds)
        return f"describe the {adjectives} {rng.choice(THINGS)}"
    if family == "invite":
        place = f" at the {rng.choice(PLACES)}" if rng.random() < 0.5 else ""
        return f"invite {rng.choice(NAMES)} to the {rng.choice(EVENTS)} on {rng.choice(DAYS)}{place}"
    return f"compare the {rng.choice(members)} and the {rng.choice(others)}"


def random_follow_up(family: str, first: str, rng: random.Random) -> str:
    """A random second turn that fits the first; it names the reader again."""
    reader = parse_first(first)[0].reader
    plurals = [word for word in words_of(first) if word in PLURALS]
    if family in ("list", "without", "either", "pack"):
        return f"give me {_number(rng, 3)} more, {reader}."
    if family == "both":
        return f"now {_number(rng, 3)} more {rng.choice(plurals)}, {reader}."
    if family == "describe":
        return f"now make it {rng.choice([word for word in ADJECTIVES if word not in first])}, {reader}."
    if family == "invite":
        new = rng.choice([word for word in (*NAMES, *DAYS) if word not in first])
        return f"now invite {new}, {reader}." if new in NAMES else f"move it to {new}, {reader}."
    return f"and the {rng.choice([noun for noun in NOUNS if noun not in first])}, {reader}?"


def ask(prompt: str) -> list[Message]:
    """A prompt as a conversation of one turn."""
    return [{"role": "user", "content": prompt}]
