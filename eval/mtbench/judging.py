"""MT-Bench's judgments: a grade from 1 to 10 for every turn, with reference answers where a category needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.judges import Conversation, Judge
from eval.mtbench.package import mtbench_file
from eval.mtbench.prompts import NEED_REFERENCE
from eval.mtbench.ratings import UNPARSED
from eval.questions import Question
from metaapo.config import EvaluationConfig
from metaapo.data import read_records, require_keys

Record = dict[str, Any]


def judge_answers(
    judge: Judge,
    questions: Sequence[Question],
    baseline: Sequence[Record],
    answers: Sequence[Record],
    settings: EvaluationConfig,
) -> list[Record]:
    """Single-answer judgments as FastChat writes them, one per turn; an unreadable grade is -1.

    Args:
        judge: the judge to ask.
        questions: in the order of the answers.
        baseline: unused.
        answers: the model's answers.
        settings: name the reference answers.

    Raises:
        DataError: a category needs reference answers, but their file or package is missing.
    """
    needed = any(question.category in NEED_REFERENCE for question in questions)
    right = references(settings) if needed else {}
    conversations = [c for question, answer in zip(questions, answers) for c in _conversations(question, answer, right)]
    turns = [
        {"question_id": question.record["question_id"], "model": answer["model_id"], "turn": turn}
        for question, answer in zip(questions, answers)
        for turn, _ in enumerate(question.turns, start=1)
    ]
    return [
        {
            "question_id": row["question_id"],
            "model": row["model"],
            "judge": [judge.name, judgment.details.get("template", judge.name)],
            "user_prompt": judgment.prompt,
            "judgment": judgment.text,
            "score": UNPARSED if judgment.value is None else judgment.value,
            "turn": row["turn"],
            **{key: value for key, value in judgment.details.items() if key != "template"},
        }
        for row, judgment in zip(turns, judge.grade(conversations))
    ]


def _conversations(question: Question, answer: Record, right: Mapping[str, tuple[str, ...]]) -> list[Conversation]:
    """The conversation up to each answer."""
    messages: list[Any] = []
    found = []
    for asked, said in zip(question.turns, texts(answer)):
        messages = [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        reference = right.get(question.id, ())
        found.append(Conversation(messages, question.category, reference, question.id, answer["model_id"], "mtbench"))
    return found


def references(settings: EvaluationConfig) -> dict[str, tuple[str, ...]]:
    """Reference answers by question: one text per turn.

    Raises:
        DataError: no such file or package.
    """
    source = settings.mtbench_references
    if source.startswith("package:"):
        path = mtbench_file(f"mt_bench/reference_answer/{source.removeprefix('package:')}.jsonl")
    else:
        path = Path(source)
    found = {}
    for number, row in enumerate(read_records(path), start=1):
        require_keys(row, ("question_id", "choices"), f"{path}, record {number}")
        found[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
    return found


def unreadable(records: Sequence[Record]) -> int:
    """Turns without a grade."""
    return sum(record["score"] == UNPARSED for record in records)


def texts(answer: Record) -> list[str]:
    """The texts of an answer record, one per turn."""
    return list(answer["choices"][0]["turns"])


def readings(record: Record) -> list[list[float]]:
    """The grade of a turn, first the judge's, then each panel member's; NaN if unreadable."""
    grade = None if record["score"] == UNPARSED else record["score"]
    return [[float("nan") if value is None else value for value in (grade, *record.get("panel", {}).values())]]


def orders(record: Record) -> None:
    """None: a single answer has no order."""
