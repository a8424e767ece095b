"""Arena-Hard's judgments: two games per question, with the baseline first and with the model first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.arenahard.answers import answer_text
from eval.judges import Comparison, Judge, Judgment, share_of_first
from eval.questions import Question
from metaapo.config import EvaluationConfig

Record = dict[str, Any]


def judge_answers(
    judge: Judge,
    questions: Sequence[Question],
    baseline: Sequence[Record],
    answers: Sequence[Record],
    settings: EvaluationConfig | None = None,
) -> list[Record]:
    """Judgments as arena-hard-auto writes them: in the first game the baseline is A, in the second the model is.

    Args:
        judge: the judge to ask.
        questions: in the order of both lists of answers.
        baseline: the baseline's answers.
        answers: the model's answers.
        settings: unused.
    """
    said = [(texts(b)[0], texts(o)[0]) for b, o in zip(baseline, answers)]
    names = [tuple(row.get("model", row.get("model_id")) for row in rows) for rows in zip(baseline, answers)]
    first = [_comparison(q, b, o, (x, y)) for q, (b, o), (x, y) in zip(questions, said, names)]
    second = [_comparison(q, o, b, (y, x)) for q, (b, o), (x, y) in zip(questions, said, names)]
    judgments = judge.verdicts(first + second)  # in one call, to keep an endpoint busy
    return [
        {
            **{key: q.record[key] for key in ("uid", "question_id") if key in q.record},
            "category": q.category,
            "judge": judge.name,
            "model": model,
            "baseline": other,
            "games": [_game(judgment) for judgment in games],
        }
        for q, (other, model), games in zip(questions, names, zip(judgments, judgments[len(first) :]))
    ]


def _comparison(question: Question, first: str, second: str, models: tuple[str, str]) -> Comparison:
    prompt: list[Any] = [{"role": "user", "content": question.turns[0]}]
    return Comparison(prompt, first, second, question.id, question.category, models, "arenahard")


def _game(judgment: Judgment) -> Record:
    return {"score": judgment.value, "judgment": judgment.text, "prompt": judgment.prompt, **judgment.details}


def unreadable(records: Sequence[Record]) -> int:
    """Games without a verdict."""
    return sum(game["score"] is None for record in records for game in record["games"])


def texts(answer: Record) -> list[str]:
    """The text of an answer record; empty if the file has metadata only."""
    return [answer_text(answer) or ""]


def compare(judge: Judge, comparisons: Sequence[Comparison]) -> list[Judgment]:
    """Judge comparisons by Arena-Hard's verdicts."""
    return judge.verdicts(comparisons)


def swaps(comparison: Comparison) -> bool:
    """Answers are shown in the order of the game."""
    return False


def readings(record: Record) -> list[list[float]]:
    """The model's share of each game, first the judge's, then each panel member's."""
    said = [[share_of_first(v) for v in (game["score"], *game.get("panel", {}).values())] for game in record["games"]]
    return [[1 - share for share in said[0]], *said[1:]]


def orders(record: Record) -> tuple[float, float] | None:
    """The model's share of the game in which it is shown first and of the other game; None unless there are two."""
    if len(record["games"]) != 2:
        return None
    second, first = (reading[0] for reading in readings(record))
    return first, second
