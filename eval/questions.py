"""The questions of a benchmark, in its upstream's own format, from wherever the configuration says.

A question has an id that is stable over models, one or two user turns, and a category. Its source is recorded with the
SHA-256 of the file, so that a score says what was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaapo.config import Experiment
from metaapo.data import DataError, read_records, require_keys, sha256_file

# The small world's question files, below world{w}/data/eval/.
WORLD_FILES = {"alpacaeval2": "alpacaeval2.json", "arenahard": "arenahard.jsonl", "mtbench": "mtbench.jsonl"}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: stable over models: AlpacaEval's instruction itself, Arena-Hard's uid, MT-Bench's question_id.
        turns: the user turns, one or (MT-Bench) two.
        category: MT-Bench's and Arena-Hard's category, AlpacaEval's dataset.
        record: the question as upstream writes it.
    """

    id: str
    turns: tuple[str, ...]
    category: str
    record: dict[str, Any]


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a benchmark with where they come from."""

    questions: list[Question]
    source: str
    sha256: str


def load_questions(experiment: Experiment, benchmark: str, world: int) -> QuestionSet:
    """The questions that an experiment asks.

    Args:
        experiment: says where they come from.
        benchmark: "alpacaeval2", "arenahard" or "mtbench".
        world: the world whose models are asked; the questions are the same in every world.

    Raises:
        DataError: the file is missing or is not in the benchmark's format.
    """
    path = experiment.world_path(world) / "data" / "eval" / WORLD_FILES[benchmark]
    return read_questions(path, benchmark, source=f"world {experiment.world.name}")


def read_questions(path: Path, benchmark: str, source: str) -> QuestionSet:
    """Read a question file in the benchmark's own format (AlpacaEval's outputs of any model will do).

    Raises:
        DataError: missing file, missing key, no question, or a question that stands there twice.
    """
    read = READERS[benchmark]
    questions = [read(row, f"{path}, record {number}") for number, row in enumerate(read_records(path), start=1)]
    if not questions:
        raise DataError(f"{path}: holds no question; expected those of {benchmark}")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"{path}: question {question.id[:80]!r} stands there twice; keep one of them")
        seen.add(question.id)
    return QuestionSet(questions, source, sha256_file(path))


def _alpacaeval2(row: dict[str, Any], where: str) -> Question:
    require_keys(row, ("instruction",), where)
    record = {"dataset": row.get("dataset", ""), "instruction": row["instruction"]}
    return Question(row["instruction"], (row["instruction"],), record["dataset"], record)


def _arenahard(row: dict[str, Any], where: str) -> Question:
    if "turns" in row:  # the files of 2024
        require_keys(row, ("question_id",), where)
        return Question(str(row["question_id"]), (row["turns"][0]["content"],), row.get("category", ""), row)
    require_keys(row, ("uid", "prompt"), where)
    return Question(str(row["uid"]), (row["prompt"],), row.get("category", ""), row)


def _mtbench(row: dict[str, Any], where: str) -> Question:
    require_keys(row, ("question_id", "category", "turns"), where)
    if len(row["turns"]) != 2:
        raise DataError(f"{where}: {len(row['turns'])} turns; MT-Bench questions have two")
    return Question(str(row["question_id"]), tuple(row["turns"]), row["category"], row)


READERS: dict[str, Callable[[dict[str, Any], str], Question]] = {
    "alpacaeval2": _alpacaeval2,
    "arenahard": _arenahard,
    "mtbench": _mtbench,
}
