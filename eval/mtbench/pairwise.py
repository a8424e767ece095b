"""MT-Bench's pairwise mode: which of two models' answers is better, asked in both orders with FastChat's prompts.

A judge says [[A]], [[B]] or [[C]] (a tie). FastChat counts a win only if both orders name the same winner; everything
else is a tie. Here it is used to compare a judge with people, who also voted on pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.judges.prompts import fill
from eval.mtbench.prompts import NEED_REFERENCE, mtbench_prompts
from metaapo.data import DataError, Message, require_keys

SETTINGS = {"max_tokens": 2048, "temperature": 0}  # fastchat.llm_judge.common.run_judge_pair
PROMPTS = ("pair-v2", "pair-math-v1", "pair-v2-multi-turn", "pair-math-v1-multi-turn")
# In the order in which FastChat looks for them; how far each favours answer A.
LABELS = {"[[A]]": 1.0, "[[B]]": 0.0, "[[C]]": 0.5}


@dataclass(frozen=True)
class Pair:
    """Two conversations about one question, up to the same turn.

    Attributes:
        question: its id.
        category: decides the prompt.
        first: user and assistant in turn, ending with the assistant.
        second: the same of the other model.
        references: right answers to the user turns, where the category needs them.
    """

    question: str
    category: str
    first: Sequence[Message]
    second: Sequence[Message]
    references: Sequence[str] = ()


def read_winner(text: str) -> float:
    """1 for answer A, 0 for answer B, 0.5 for a tie, as FastChat parses a judge's reply; NaN without a label."""
    return next((share for label, share in LABELS.items() if label in text), float("nan"))


def pair_messages(prompts: Mapping[str, Mapping[str, Any]], pair: Pair) -> list[Message]:
    """The messages that ask the judge about the last turn of a pair.

    Raises:
        DataError: the category needs reference answers, but there are none.
    """
    math, second = pair.category in NEED_REFERENCE, len(pair.first) > 2
    if math and len(pair.references) < 1 + second:
        raise DataError(
            f"MT-Bench question {pair.question}: no reference answer, which {pair.category} needs; set "
            "evaluation.mtbench_references"
        )
    prompt = prompts[("pair-math-v1" if math else "pair-v2") + ("-multi-turn" if second else "")]
    a, b = ([message["content"] for message in talk] for talk in (pair.first, pair.second))
    if second:
        values = {"question_1": a[0], "question_2": a[2], "answer_a_1": a[1], "answer_a_2": a[3]}
        values |= {"answer_b_1": b[1], "answer_b_2": b[3]}
    else:
        values = {"question": a[0], "answer_a": a[1], "answer_b": b[1]}
    values |= {f"ref_answer_{n}": text for n, text in enumerate(pair.references, start=1)}
    return [
        {"role": "system", "content": prompt["system_prompt"]},
        {"role": "user", "content": fill(prompt["prompt_template"], values)},
    ]


def ask_pairs(judge: Any, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """How far a judge favours the first answers, shown first and shown second, each (pairs,); NaN if unreadable.

    Args:
        judge: one that accepts free prompts (`ask_about`), such as a language model.
        pairs: the pairs to judge.
    """
    file = judge.config.prompts.get("mtbench", "")
    prompts = mtbench_prompts(file)
    require_keys(prompts, PROMPTS, file or "FastChat's judge prompts")
    turned = [Pair(p.question, p.category, p.second, p.first, p.references) for p in pairs]
    asked = [pair_messages(prompts, pair) for pair in [*pairs, *turned]]
    answers = judge.ask_about(asked, SETTINGS, lambda answer: not np.isnan(read_winner(answer.text)))
    shares = np.array([read_winner(answer.text) for answer in answers])
    return shares[: len(pairs)], 1 - shares[len(pairs) :]


def decided(straight: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """FastChat's verdict of both orders: a winner that both name, else a tie; NaN if either is unreadable."""
    verdict = np.where(straight == swapped, straight, 0.5)
    return np.where(np.isnan(straight) | np.isnan(swapped), np.nan, verdict)
