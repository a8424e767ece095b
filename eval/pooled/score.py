"""Pooled win rate: the mean over all questions of how much the judge prefers the model's answers to the SFT policy's.

A question's value is the mean over its turns, 0 to 1; a question with an unreadable turn has no value and is counted as
failed. The interval of a single model is a bootstrap over questions; comparisons of methods, over worlds and questions,
are in `reports.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from eval.benchmark import Judged, Scores, metric
from eval.records import refuse_repeats
from eval.stats import bootstrap_mean
from metaapo.config import EvaluationConfig
from metaapo.data import require_keys

Record = Mapping[str, Any]
VERSION = "pooled-1"


def value_of(record: Record) -> float | None:
    """The model's share of a question, 0 to 1, mean over its turns; None if a turn could not be read."""
    preferences = [turn["preference"] for turn in record["turns"]]
    return None if None in preferences else fmean(preference - 1 for preference in preferences)


def score_models(judged: Judged, settings: EvaluationConfig, seed: int) -> Scores:
    """Win rates of all models in percent: over all questions, and for each kind of them.

    Raises:
        DataError: a judgment lacks a key, or a question was judged twice.
    """
    lengths = {(row["model"], row["question"]): sum(map(len, row["turns"])) for row in judged.answers()}
    rows, items = {}, []
    for model, records in judged.judgments.items():
        _check(records, model)
        values = {record["question"]: value_of(record) for record in records}
        rows[model] = _row(values, [_length_per_turn(lengths, model, record) for record in records], seed)
        items += [
            {
                "model": model,
                "question": record["question"],
                "value": values[record["question"]],
                "length": lengths.get((model, record["question"])),
                "category": record["category"],
            }
            for record in records
        ]
    baselines = {record["baseline"] for records in judged.judgments.values() for record in records}
    return Scores(VERSION, rows, items, min(baselines) if len(baselines) == 1 else sorted(baselines))


def _length_per_turn(lengths: Mapping[tuple[str, str], int], model: str, record: Record) -> float:
    """Mean characters of a model's answers to a question's turns; NaN if its answers are not at hand."""
    return lengths.get((model, record["question"]), math.nan) / len(record["turns"])


def _check(records: Sequence[Record], model: str) -> None:
    for number, record in enumerate(records, start=1):
        require_keys(record, ("question", "category", "baseline", "turns"), f"judgments of {model}, record {number}")
    refuse_repeats((record["question"] for record in records), f"judgments of {model}")


def _row(values: Mapping[str, float | None], lengths: Sequence[float], seed: int) -> dict[str, Any]:
    known = {question: value for question, value in values.items() if value is not None}
    kinds = dict.fromkeys(question.rpartition("-")[0] for question in known)
    of_kind = {kind: [v for q, v in known.items() if q.rpartition("-")[0] == kind] for kind in kinds}
    metrics = {"win_rate": _win_rate(list(known.values()), seed)}
    metrics |= {f"kind:{kind}": _win_rate(shares, seed) for kind, shares in of_kind.items() if kind}
    return {
        "metrics": metrics,
        "n": len(known),
        "n_failed": len(values) - len(known),
        "mean_length": float(np.nanmean(lengths)) if not np.isnan(lengths).all() else None,
        "position_inconsistency": None,
    }


def _win_rate(shares: Sequence[float], seed: int) -> dict[str, Any]:
    """Shares as a percentage with the 95 % bootstrap interval over questions; no interval with fewer than two."""
    if len(shares) < 2:
        return metric(100 * shares[0] if shares else None)
    estimate = bootstrap_mean(100 * np.array(shares), seed=seed)
    return metric(estimate.value, estimate.low, estimate.high, estimate.stderr)
