"""Writes examples/preferences.jsonl: 240 small preference pairs in TRL's conversational format, made from templates.

    python examples/make_preferences.py

They are for trying the workflow on a real language model where no dataset is at hand: a helpful answer is right, short
and friendly; the other one is wrong, evasive or rambling. Nothing of general interest can be learned from them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

CAPITALS = (
    "France:Paris,Italy:Rome,Spain:Madrid,Portugal:Lisbon,Germany:Berlin,Austria:Vienna,Poland:Warsaw,Norway:Oslo,"
    "Sweden:Stockholm,Finland:Helsinki,Greece:Athens,Turkey:Ankara,Egypt:Cairo,Kenya:Nairobi,Japan:Tokyo,China:Beijing,"
    "India:New Delhi,Canada:Ottawa,Mexico:Mexico City,Peru:Lima,Chile:Santiago"
)
OPPOSITES = (
    "hot:cold,big:small,early:late,fast:slow,light:dark,wet:dry,open:closed,full:empty,old:new,loud:quiet,soft:hard,"
    "near:far,rich:poor,high:low,sweet:sour,strong:weak,deep:shallow"
)
KINDS = (
    "fruits:apples pears plums cherries grapes,animals:dogs cats horses foxes owls,colors:red blue green yellow orange,"
    "tools:hammers saws drills axes pliers,drinks:water tea coffee milk juice,garments:hats coats scarves shirts socks"
)
EVASIONS = (
    "I would rather not say.",
    "That is a very interesting question, and there are many things to consider, so it depends on a lot of factors.",
    "Well, well, well. Let me think. Hmm. I am thinking about it. It is hard to say.",
    "I do not know. Please ask somebody else.",
)
PAIRS = 240


def table(text: str) -> dict[str, str]:
    """Pairs "a:b,c:d" as a dictionary."""
    return dict(pair.split(":") for pair in text.split(","))


def questions(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Question, good answer, wrong answer."""
    capitals, opposites, kinds = table(CAPITALS), table(OPPOSITES), table(KINDS)
    while True:
        country, word, kind = rng.choice(list(capitals)), rng.choice(list(opposites)), rng.choice(list(kinds))
        wrong_city = rng.choice([city for city in capitals.values() if city != capitals[country]])
        yield (
            f"What is the capital of {country}?",
            f"The capital of {country} is {capitals[country]}.",
            f"The capital of {country} is {wrong_city}.",
        )
        wrong_word = rng.choice([w for w in opposites.values() if w != opposites[word]])
        yield f"What is the opposite of '{word}'?", f"The opposite is '{opposites[word]}'.", f"It is '{wrong_word}'."
        a, b = rng.randint(2, 60), rng.randint(2, 60)
        yield f"How much is {a} plus {b}?", f"{a} plus {b} is {a + b}.", f"{a} plus {b} is {a + b + rng.randint(1, 9)}."
        three = rng.sample(kinds[kind].split(), 3)
        other = rng.sample(kinds[rng.choice([k for k in kinds if k != kind])].split(), 2)
        yield (
            f"Name three {kind}.",
            f"Three {kind} are {three[0]}, {three[1]} and {three[2]}.",
            f"Perhaps {three[0]}, {other[0]}, and {other[1]}.",
        )


def main() -> None:
    """Write the pairs beside this file."""
    rng = random.Random(0)
    rows: dict[str, dict[str, list[dict[str, str]]]] = {}
    for question, good, wrong in questions(rng):
        bad = wrong if rng.random() < 0.6 else rng.choice(EVASIONS)
        turn = {"role": "user", "content": question}
        answers = [[{"role": "assistant", "content": text}] for text in (good, bad)]
        rows.setdefault(question, {"prompt": [turn], "chosen": answers[0], "rejected": answers[1]})
        if len(rows) == PAIRS:
            break
    text = "".join(json.dumps(row) + "\n" for row in rows.values())
    Path(__file__).with_name("preferences.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
