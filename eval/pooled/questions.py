"""The pooled questions {question, category, turns}: those of every kind that the small world has.

They are answered at one temperature, whatever the configuration sets for other benchmarks: the endpoint is the quality
of what a policy samples, and greedy decoding would measure its loops instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from eval.questions import Question
from metaapo.config import ConfigError, EvaluationConfig
from metaapo.data import DataError, require_keys

Record = dict[str, Any]
TEMPERATURE = 0.7


def read(row: Record, where: str) -> Question:
    """A question of one or more turns.

    Raises:
        DataError: a key is missing, or there is no turn.
    """
    require_keys(row, ("question", "category", "turns"), where)
    if not row["turns"]:
        raise DataError(f"{where}: no turn; expected a list of user turns")
    return Question(row["question"], tuple(row["turns"]), row["category"], row)


def from_world(row: Record) -> Record:
    """A question of the tiny world, {kind, id, category, turns}; ids count within a kind."""
    return {"question": f"{row['kind']}-{row['id']:03d}", "category": row["category"], "turns": row["turns"]}


def package_questions(settings: EvaluationConfig) -> Path:
    """None: no package has them.

    Raises:
        ConfigError: always.
    """
    _refuse("questions")


def hub_questions(settings: EvaluationConfig) -> tuple[str, str, str]:
    """None: they are not on the hub.

    Raises:
        ConfigError: always.
    """
    _refuse("questions")


def package_baseline(settings: EvaluationConfig, questions: Sequence[Question]) -> list[Record]:
    """None: the baseline is the SFT policy of each model's world.

    Raises:
        ConfigError: always.
    """
    _refuse("baselines")


def _refuse(key: str) -> NoReturn:
    raise ConfigError(
        f"evaluation.{key}.pooled: this benchmark pools the questions of a small world and has no official {key}; "
        "remove the key, or remove pooled from evaluation.benchmarks"
    )


def temperature(question: Question, settings: EvaluationConfig) -> float:
    """The benchmark's own temperature."""
    return TEMPERATURE


def answer_records(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    model: str,
    settings: EvaluationConfig,
    in_world: bool,
) -> list[Record]:
    """Answers {question, model, turns: one text per user turn}."""
    return [{"question": q.id, "model": model, "turns": list(turns)} for q, turns in zip(questions, answers)]


def question_of(record: Record) -> str | None:
    """The question id of an answer or judgment; None if it has none."""
    return record.get("question")
