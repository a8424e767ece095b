"""AlpacaEval's annotations: how much a judge prefers the model's answer (output_2) to the baseline's (output_1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.alpacaeval2.preferences import is_switched
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
    """Annotations as alpaca_eval writes them: the baseline is output_1, the model output_2.

    Identical outputs are a draw (1.5) without asking the judge, as upstream.

    Args:
        judge: the judge to ask.
        questions: in the order of both lists of answers.
        baseline: the baseline's answers.
        answers: the model's answers.
        settings: unused.
    """
    comparisons = [
        Comparison(
            [{"role": "user", "content": question.turns[0]}],
            b["output"],
            o["output"],
            question.id,
            question.category,
            (b["generator"], o["generator"]),
            "alpacaeval2",
        )
        for question, b, o in zip(questions, baseline, answers)
    ]
    judgments = iter(judge.prefer([comparison for comparison in comparisons if comparison.first != comparison.second]))
    annotations = []
    for comparison, b, o in zip(comparisons, baseline, answers):
        same = comparison.first == comparison.second
        judgment = Judgment(1.5, "identical outputs") if same else next(judgments)
        annotations.append(
            {
                "instruction": b["instruction"],
                "dataset": b["dataset"],
                "output_1": b["output"],
                "generator_1": b["generator"],
                "output_2": o["output"],
                "generator_2": o["generator"],
                "annotator": judge.name,
                "preference": judgment.value,
                "preference_raw_completion": judgment.text,
                **judgment.details,
            }
        )
    return annotations


def unreadable(records: Sequence[Record]) -> int:
    """Annotations without a preference."""
    return sum(record["preference"] is None for record in records)


def texts(answer: Record) -> list[str]:
    """The text of an answer record."""
    return [answer["output"]]


def compare(judge: Judge, comparisons: Sequence[Comparison]) -> list[Judgment]:
    """Judge comparisons by AlpacaEval's preference."""
    return judge.prefer(comparisons)


def swaps(comparison: Comparison) -> bool:
    """Whether upstream shows the second answer first."""
    return is_switched(comparison.prompt[-1]["content"])


def readings(record: Record) -> list[list[float]]:
    """The model's share of the comparison, first the judge's, then each panel member's."""
    return [[1 - share_of_first(value) for value in (record["preference"], *record.get("panel", {}).values())]]


def orders(record: Record) -> tuple[float, float] | None:
    """The model's share when shown first and when shown second; None if only one order was asked."""
    if "orders" not in record:
        return None
    straight, other = (1 - share_of_first(value) for value in record["orders"])
    return (straight, other) if is_switched(record["instruction"]) else (other, straight)
