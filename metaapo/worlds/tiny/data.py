"""The tiny world: short English errands, answered by a small model, graded by a program.

A prompt asks for words and names its reader: "list three animals, potter.", and in a second turn "give me two more,
potter." (tasks.py). Every reader wants a certain greeting. Writers with different habits and beliefs answer
(writers.py); `gold` grades an answer (gold.py). This module draws prompts and builds a world's records from them:
demonstrations, preference pairs, questions.

    python -m metaapo.worlds.tiny.data --config config/default.yaml --world 0
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metaapo.command import errors_in_one_sentence, world_arguments
from metaapo.config import WorldConfig
from metaapo.data import DataError, Message, sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, load
from metaapo.worlds.tiny.gold import HIGH, LOW, RUBRIC, TAU, gold
from metaapo.worlds.tiny.tasks import (
    FAMILIES,
    READERS,
    WANTED,
    ask,
    parse,
    parse_first,
    random_clause,
    random_follow_up,
)
from metaapo.worlds.tiny.tokenizer import write_tokenizer
from metaapo.worlds.tiny.writers import (
    CAREFUL,
    DEMONSTRATOR,
    Beliefs,
    answer,
    model_answer,
    offline_answers,
    offline_beliefs,
    outdated_beliefs,
)


def _is_reserved(prompt: str) -> bool:
    """Whether a first turn belongs to evaluation: a quarter of all prompts, by hash, in every world."""
    return hashlib.sha256(prompt.encode()).digest()[0] < 64


def _first_turn(family: str, rng: random.Random, reserved: bool) -> str:
    """A random first turn; family "compose" joins two clauses of different families."""
    while True:
        if family == "compose":
            one, two = rng.sample(FAMILIES, 2)
            clause = f"first {random_clause(one, rng)}, then {random_clause(two, rng)}"
        else:
            clause = random_clause(family, rng)
        prompt = f"{clause}, {rng.choice(READERS)}."
        # two clauses can ask for the same word twice, which no answer can satisfy: draw again
        if _is_reserved(prompt) == reserved and gold(ask(prompt), model_answer(parse_first(prompt))).reward == HIGH:
            return prompt


def training_prompts(
    rng: random.Random, beliefs: Beliefs, two_turns: float = 0.15, composed: float = 0.25
) -> Iterator[tuple[str, list[Message]]]:
    """Endless training prompts, none of them reserved for evaluation.

    Args:
        rng: the source of randomness.
        beliefs: the demonstrator's.
        two_turns: fraction of conversations with a second turn; the first answer is the demonstrator's.
        composed: fraction of first turns that join two clauses.

    Yields:
        (family, conversation that ends with a user turn).
    """
    while True:
        family = "compose" if rng.random() < composed else rng.choice(FAMILIES)
        messages = ask(_first_turn(family, rng, reserved=False))
        if family != "compose" and rng.random() < two_turns:
            said = answer(parse(messages), DEMONSTRATOR, rng, beliefs)
            second = random_follow_up(family, messages[0]["content"], rng)
            messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": second}]
        yield family, messages


def best_and_other(
    messages: Sequence[Message], answers: Sequence[str], tau: float, rng: random.Random
) -> tuple[str, str]:
    """(chosen, rejected), as in UltraFeedback: the answer with the highest noisy grade and a random other one.

    The noise is Gumbel's at temperature tau, so of two answers the better one wins with the probability of
    Bradley-Terry (`gold.prefer`).
    """
    grades = [gold(messages, text).reward - tau * math.log(-math.log(1.0 - rng.random())) for text in answers]
    best = max(range(len(answers)), key=grades.__getitem__)
    other = rng.choice([i for i in range(len(answers)) if i != best])
    return answers[best], answers[other]


def demonstrations(count: int, seed: int) -> list[dict[str, Any]]:
    """SFT records: {id, messages, response, task}."""
    rng, beliefs = random.Random(f"tiny/{seed}/sft"), outdated_beliefs(seed)
    prompts = itertools.islice(training_prompts(rng, beliefs), count)
    return [
        {
            "id": f"sft-{i:05d}",
            "messages": messages,
            "response": answer(parse(messages), DEMONSTRATOR, rng, beliefs),
            "task": task,
        }
        for i, (task, messages) in enumerate(prompts)
    ]


def _believed(outdated: Beliefs, local: Beliefs, world: WorldConfig, rng: random.Random) -> Beliefs:
    """What the offline writers believe at one prompt: the same at every prompt, unless the world is not local."""
    if world.locality < 1.0 and rng.random() >= world.locality:
        return WANTED if rng.random() < world.shown else outdated
    return local


def preference_pairs(world: WorldConfig, iterations: int, seed: int) -> list[dict[str, Any]]:
    """Offline records: {id, messages, chosen, rejected, task, iteration}.

    Args:
        world: sets how many pairs an iteration has, the noise of their labels, and what their writers know.
        iterations: 1 or more.
        seed: the world's.
    """
    rng, per_iteration, tau = random.Random(f"tiny/{seed}/pairs"), world.pairs_per_iteration, world.label_tau
    beliefs = outdated_beliefs(seed), offline_beliefs(seed, world.shown)
    rows: list[dict[str, Any]] = []
    for task, messages in training_prompts(rng, outdated_beliefs(seed)):
        if len(rows) == per_iteration * iterations:
            return rows
        believed = _believed(*beliefs, world, rng)
        chosen, rejected = best_and_other(messages, offline_answers(parse(messages), rng, believed), tau, rng)
        if chosen == rejected or not (chosen.strip() and rejected.strip()):
            continue
        row = {"id": f"pair-{len(rows):05d}", "messages": messages, "chosen": chosen, "rejected": rejected}
        rows.append(row | {"task": task, "iteration": 1 + len(rows) // per_iteration})
    return rows


def _distinct(families: Sequence[str], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` distinct reserved first turns, the families in turn: (family, prompt).

    Raises:
        DataError: a family has too few prompts.
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
    turn and a follow-up. Benchmarks convert them to their own formats (`eval.benchmark`).
    """
    rng = random.Random("tiny/evaluation")
    mixed = [(family, [prompt]) for family, prompt in _distinct(FAMILIES, config.questions.mixed, rng)]
    composed = [(family, [prompt]) for family, prompt in _distinct(["compose"], config.questions.composed, rng)]
    two_turn = [
        (family, [prompt, random_follow_up(family, prompt, rng)])
        for family, prompt in _distinct(FAMILIES, config.questions.two_turn, rng)
    ]
    kinds = {"mixed": mixed, "composed": composed, "two_turn": two_turn}
    return {
        kind: [{"id": i, "category": family, "turns": turns} for i, (family, turns) in enumerate(rows)]
        for kind, rows in kinds.items()
    }


def baseline_answers(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The composed questions with the careful writer's answers, plus {model, answer}; the same in every world.

    Hard questions need a strong baseline from a different source. The SFT policy would be too weak: every online method
    wins nearly all of its games against it on these questions.
    """
    rng = random.Random("tiny/evaluation/baseline")
    return [
        row | {"model": "careful-writer", "answer": answer(parse(ask(row["turns"][0])), CAREFUL, rng)}
        for row in questions
    ]


def build(experiment: Experiment, seed: int, out_dir: str | Path) -> None:
    """Write a world's records, questions, tokenizer and manifest.

    Args:
        experiment: sets the number of records (`world`, `iterations`) and positions (`model`).
        seed: the world's seed.
        out_dir: the folder `data/`; the manifest is written last.
    """
    out_dir, world = Path(out_dir), experiment.world
    sets = evaluation_sets(world)
    records = {
        "pairs.jsonl": preference_pairs(world, experiment.iterations, seed),
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
