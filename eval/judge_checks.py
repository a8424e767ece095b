"""Does a judge deserve trust? Two canaries that need no human: order must not matter, and a constant answer must lose.

    python -m eval.judge_checks --config results/default/config.yaml --judge gold

- `position`: on real pairs of answers judged in both orders, the share whose two judgments name different winners, and
  how much the answer shown first is favoured. AlpacaEval asks in one order only; here both are asked.
- `null_model`: a model that always gives the same empty phrase, whatever is asked, against the baseline (pairwise) or
  beside the models (graded). A judge that lets it win can be gamed (Zheng et al., arXiv 2410.07137: 86.5 % LC on
  AlpacaEval 2 with a crafted constant answer).

Writes canaries/{benchmark}/{judge}.json. Judges that are paid for are asked about `--n` questions only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval.benchmark import benchmark as declaration
from eval.benchmark import judging_of
from eval.checkpoints import EvaluatedModel, evaluated_runs, models_of_run
from eval.judge import baseline_rows, describe_judge
from eval.judges import Comparison, Judge, Judgment
from eval.judges.catalogue import open_judge
from eval.questions import Question, answer_records, answers_in_order, load_questions
from eval.stats import bootstrap_mean
from metaapo.data import write_json
from metaapo.experiment import Experiment, load

NULL_ANSWER = "here you go, i hope this helps."
NULL_MODEL = "null-model"
LEVELS = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}


def first_share(judgment: Judgment) -> float:
    """How far an judgment favours the first answer, 0 to 1; NaN where it could not be read."""
    if judgment.value is None:
        return float("nan")
    return LEVELS[judgment.value] if isinstance(judgment.value, str) else 2 - judgment.value


def ask_both_orders(judge: Judge, benchmark: str, comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """The share of each comparison's first answer when shown first and when shown second, each (comparisons,)."""
    stage = judging_of(benchmark)
    swapped = [replace(p, first=p.second, second=p.first, models=p.models[::-1]) for p in comparisons]
    judgments = stage.compare(judge, [*comparisons, *swapped])
    shares = np.array([first_share(judgment) for judgment in judgments])
    straight, other = shares[: len(comparisons)], 1 - shares[len(comparisons) :]
    turned = np.array([stage.swaps(comparison) for comparison in comparisons], dtype=bool)
    return np.where(turned, other, straight), np.where(turned, straight, other)


def position_canary(straight: np.ndarray, swapped: np.ndarray) -> dict[str, Any]:
    """What asking in both orders shows; arrays (comparisons,) of the first answer's share, NaN where unreadable."""
    both = ~(np.isnan(straight) | np.isnan(swapped))
    straight, swapped = straight[both], swapped[both]
    if not both.any():
        return {"n": 0, "inconsistent": None, "first_slot_advantage": None}
    return {
        "n": int(both.sum()),
        "inconsistent": float(np.mean((straight - 0.5) * (swapped - 0.5) < 0)),
        "first_slot_advantage": float(np.mean(straight - swapped) / 2),
    }


def null_canary(straight: np.ndarray, swapped: np.ndarray) -> dict[str, Any]:
    """The win rate of the null model, shown second, in percent, with a 95 % interval; it must lose."""
    shares = 1 - np.nanmean(np.stack([straight, swapped]), axis=0)
    estimate = bootstrap_mean(100 * shares)
    return {
        "win_rate": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n": int((~np.isnan(shares)).sum()),
        "loses": estimate.high < 50,
    }


def _answers(experiment: Experiment, benchmark: str, model: EvaluatedModel, questions: list[Question]) -> list[str]:
    return _first_texts(benchmark, answers_in_order(model.answers(experiment, benchmark), benchmark, questions))


def _first_texts(benchmark: str, rows: list[dict[str, Any]]) -> list[str]:
    return [judging_of(benchmark).texts(row)[0] for row in rows]


def pairwise_canaries(experiment: Experiment, judge: Judge, benchmark: str, model: EvaluatedModel, n: int) -> Any:
    """Both canaries of a pairwise benchmark, on the first n questions."""
    questions = load_questions(experiment, benchmark, model.world).questions[:n]
    own = _answers(experiment, benchmark, model, questions)
    other = _first_texts(benchmark, baseline_rows(experiment, benchmark, model.world, questions))

    def comparisons(answers: Sequence[str], name: str) -> list[Comparison]:
        return [
            Comparison([{"role": "user", "content": q.turns[0]}], b, a, q.id, q.category, ("baseline", name), benchmark)
            for q, b, a in zip(questions, other, answers)
        ]

    return {
        "model": model.id,
        "position": position_canary(*ask_both_orders(judge, benchmark, comparisons(own, model.id))),
        "null_model": null_canary(
            *ask_both_orders(judge, benchmark, comparisons([NULL_ANSWER] * len(questions), NULL_MODEL))
        ),
    }


def graded_canary(experiment: Experiment, judge: Judge, benchmark: str, model: EvaluatedModel, n: int) -> Any:
    """The null model's mean grade beside a real model's, on the first n questions."""
    asked = load_questions(experiment, benchmark, model.world)
    questions, settings, stage = asked.questions[:n], experiment.evaluation, judging_of(benchmark)
    own = answers_in_order(model.answers(experiment, benchmark), benchmark, questions)
    said = [[NULL_ANSWER] * len(question.turns) for question in questions]
    null = answer_records(benchmark, questions, said, NULL_MODEL, settings, asked.in_world)
    grades = []
    for answers in (own, null):
        found = [stage.grade_of(row) for row in stage.judge_answers(judge, questions, [], answers, settings)]
        grades.append(np.array([np.nan if grade is None else grade for grade in found], dtype=float))
    difference = bootstrap_mean(grades[0] - grades[1])
    return {
        "model": model.id,
        "null_model": {
            "average": float(np.nanmean(grades[1])),
            "model_average": float(np.nanmean(grades[0])),
            "ahead": difference.value,
            "ci_low": difference.low,
            "ci_high": difference.high,
            "loses": difference.low > 0,
        },
    }


def canaries(experiment: Experiment, name: str, benchmark: str, n: int) -> Any:
    """The canaries of one benchmark and judge, with the last checkpoint of the experiment's last run."""
    model = models_of_run(experiment, evaluated_runs(experiment)[-1])[-1]
    judge = open_judge(experiment, name, model.world)
    checks = pairwise_canaries if declaration(benchmark).pairwise else graded_canary
    found = checks(experiment, judge, benchmark, model, n)
    return {"benchmark": benchmark, "judge": describe_judge(experiment, name), "n": n, **found}


def main() -> None:
    """Command line: try a judge on all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge_checks", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--benchmark", nargs="+", help="default: the experiment's")
    parser.add_argument("--n", type=int, default=100, help="questions of each benchmark")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        for benchmark in arguments.benchmark or experiment.benchmarks:
            found = canaries(experiment, arguments.judge, benchmark, arguments.n)
            write_json(experiment.results / "canaries" / benchmark / f"{arguments.judge}.json", found)
            print(json.dumps(found, indent=2))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
