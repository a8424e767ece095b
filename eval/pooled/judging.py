"""Pooled judgments: how much a judge prefers each of the model's answers to the SFT policy's, one record per question.

A later turn continues each policy's own conversation, so the two answers to it have different prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.alpacaeval2.preferences import is_switched
from eval.judges import Comparison, Judge, Judgment, share_of_first
from eval.questions import Question
from metaapo.config import EvaluationConfig
from metaapo.data import Message

Record = dict[str, Any]


def judge_answers(
    judge: Judge,
    questions: Sequence[Question],
    baseline: Sequence[Record],
    answers: Sequence[Record],
    settings: EvaluationConfig | None = None,
) -> list[Record]:
    """Judgments {question, category, judge, model, baseline, turns: [{instruction, preference, judgment, ...}]}.

    A preference runs from 1 (the baseline's answer) to 2 (the model's). Identical conversations are a draw (1.5)
    without asking the judge.

    Args:
        judge: the judge to ask.
        questions: in the order of both lists of answers.
        baseline: the baseline's answers.
        answers: the model's answers.
        settings: unused.
    """
    asked = [_comparisons(*rows) for rows in zip(questions, baseline, answers)]
    judgments = iter(judge.prefer([turn for turns in asked for turn in turns if not _same(turn)]))
    return [
        {
            "question": question.id,
            "category": question.category,
            "judge": judge.name,
            "model": answer["model"],
            "baseline": other["model"],
            "turns": [_turn(turn, DRAW if _same(turn) else next(judgments)) for turn in turns],
        }
        for question, other, answer, turns in zip(questions, baseline, answers, asked)
    ]


DRAW = Judgment(1.5, "identical outputs")


def _comparisons(question: Question, baseline: Record, answer: Record) -> list[Comparison]:
    """The comparison of each turn: the baseline's answer first, each with its own conversation before it."""
    names = (baseline["model"], answer["model"])
    prompts: tuple[list[Message], list[Message]] = ([], [])
    found = []
    for asked, *said in zip(question.turns, baseline["turns"], answer["turns"]):
        first, second = ([*prompt, {"role": "user", "content": asked}] for prompt in prompts)
        found.append(
            Comparison(first, *said, question.id, question.category, names, "pooled", second if found else None)
        )
        prompts = tuple([*p, {"role": "assistant", "content": s}] for p, s in zip((first, second), said))
    return found


def _same(comparison: Comparison) -> bool:
    """Whether both answers, and the conversations before them, are the same."""
    prompts_agree = comparison.second_prompt in (None, comparison.prompt)
    return prompts_agree and comparison.first == comparison.second


def _turn(comparison: Comparison, judgment: Judgment) -> Record:
    return {
        "instruction": comparison.prompt[-1]["content"],
        "preference": judgment.value,
        "judgment": judgment.text,
        **judgment.details,
    }


def unreadable(records: Sequence[Record]) -> int:
    """Turns without a preference."""
    return sum(turn["preference"] is None for record in records for turn in record["turns"])


def texts(answer: Record) -> list[str]:
    """The texts of an answer record, one per turn."""
    return list(answer["turns"])


def compare(judge: Judge, comparisons: Sequence[Comparison]) -> list[Judgment]:
    """Judge comparisons by preference, as AlpacaEval's."""
    return judge.prefer(comparisons)


def swaps(comparison: Comparison) -> bool:
    """Whether a language model is shown the second answer first, as in AlpacaEval."""
    return is_switched(comparison.prompt[-1]["content"])


def readings(record: Record) -> list[list[float]]:
    """The model's share of each turn, first the judge's, then each panel member's."""
    said = [(turn["preference"], *turn.get("panel", {}).values()) for turn in record["turns"]]
    return [[1 - share_of_first(value) for value in values] for values in said]


def orders(record: Record) -> tuple[float, float] | None:
    """The model's share when shown first and when shown second, mean over turns; None unless both were asked."""
    if not all("orders" in turn for turn in record["turns"]):
        return None
    both = [_orders_of(turn) for turn in record["turns"]]
    first, second = (sum(side) / len(both) for side in zip(*both))
    return first, second


def _orders_of(turn: Record) -> tuple[float, float]:
    straight, other = (1 - share_of_first(value) for value in turn["orders"])
    return (straight, other) if is_switched(turn["instruction"]) else (other, straight)
