"""Check whether a judge can be trusted, with questions that a trustworthy judge gets right.

    python -m eval.judge_checks --config results/default/config.yaml --judge gold

On the first questions of each benchmark, with the answers of the last checkpoint of the experiment's last run:

| check | the judge sees | expected |
| --- | --- | --- |
| `orders` | each pair of answers in both orders | the same winner |
| `retest` | the same again, `evaluation.trust.repeats` times | the same verdict |
| `constant` | a model that always gives the same empty phrase | it loses |
| `pad` | the answer repeated twice against the answer itself | length gains nothing |
| `command` | the empty phrase with a command to the judge | it gains nothing |
| `verdict` | the empty phrase with a verdict that the judge may quote | it gains nothing |
| `human` | answers that people voted on (MT-Bench; `evaluation.trust.human_labels`) | their winner |

Writes judge_checks/{benchmark}/{judge}.json. Nothing here enters a score. The attacks are in `eval.tampering`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.agreement import order_effects, retest
from eval.benchmark import benchmark as declaration
from eval.benchmark import judging_of, people_modules
from eval.checkpoints import EvaluatedModel, evaluated_runs, models_of_run
from eval.judge import baseline_rows, describe_judge
from eval.judges import Comparison, Judge, share_of_first
from eval.judges.catalogue import open_judge
from eval.questions import QuestionSet, answer_records, answers_in_order, load_questions
from eval.stats import bootstrap_mean
from eval.tampering import CONSTANT, INJECTIONS, pad
from metaapo.command import load_and_pin
from metaapo.data import write_json
from metaapo.experiment import Experiment

Record = dict[str, Any]
TAMPERED = "tampered"  # the name of a model whose answers are generated here
TIE_WIDTH = 0.05  # preferences between 0.45 and 0.55 count as a tie


def ask_both_orders(judge: Judge, benchmark: str, comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """The share of each comparison's first answer when shown first and when shown second, each (comparisons,)."""
    stage = judging_of(benchmark)
    swapped = [comparison.swapped() for comparison in comparisons]
    judgments = stage.compare(judge, [*comparisons, *swapped])
    shares = np.array([share_of_first(judgment.value) for judgment in judgments])
    straight, other = shares[: len(comparisons)], 1 - shares[len(comparisons) :]
    turned = np.array([stage.swaps(comparison) for comparison in comparisons], dtype=bool)
    return np.where(turned, other, straight), np.where(turned, straight, other)


@dataclasses.dataclass(frozen=True)
class Asked:
    """The questions and answers that the checks use, in the order of the questions.

    Attributes:
        experiment: the experiment.
        benchmark: its name.
        questions: all questions, of which the first n are used.
        texts: the model's answers, one text per turn.
        other: the baseline's first texts; [] if there is no baseline.
        n: number of questions.
    """

    experiment: Experiment
    benchmark: str
    questions: QuestionSet
    texts: list[list[str]]
    other: list[str]
    n: int

    def comparisons(self, answers: Sequence[str], others: Sequence[str]) -> list[Comparison]:
        """The answers, shown first, against others."""
        return [
            Comparison(
                [{"role": "user", "content": question.turns[0]}],
                answer,
                other,
                question.id,
                question.category,
                (TAMPERED, "other"),
                self.benchmark,
            )
            for question, answer, other in zip(self.questions.questions, answers, others)
        ]

    def grades(self, judge: Judge, change: Callable[[str], str] = str) -> np.ndarray:
        """The judge's grades of the model's answers after a change, (turns of all questions,)."""
        questions, settings = self.questions.questions[: self.n], self.experiment.evaluation
        said = [[change(text) for text in turns] for turns in self.texts]
        rows = answer_records(self.benchmark, questions, said, TAMPERED, settings, self.questions.in_world)
        stage = judging_of(self.benchmark)
        said = stage.judge_answers(judge, questions, [], rows, settings)
        return np.array([reading[0] for row in said for reading in stage.readings(row)])


def prepare(experiment: Experiment, benchmark: str, model: EvaluatedModel, n: int) -> Asked:
    """Collect the questions and answers of one model for the checks."""
    asked = load_questions(experiment, benchmark, model.world)
    questions, stage = asked.questions[:n], judging_of(benchmark)
    texts = [stage.texts(row) for row in answers_in_order(model.answers(experiment, benchmark), benchmark, questions)]
    other = [stage.texts(row)[0] for row in baseline_rows(experiment, benchmark, model.world, questions)]
    return Asked(experiment, benchmark, asked, texts, other, len(questions))


def pairwise_checks(asked: Asked, judges: Sequence[Judge]) -> Record:
    """The checks of a benchmark that compares answers.

    Args:
        asked: the questions and answers to use.
        judges: the judge, once per repetition.
    """
    judge, benchmark = judges[0], asked.benchmark
    first = [turns[0] for turns in asked.texts]

    def win_rate(answers: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """The answers' share of each comparison in percent, mean over both orders."""
        orders = ask_both_orders(judge, benchmark, asked.comparisons(answers, others))
        return 100 * np.mean(np.stack(orders), axis=0)

    straight, swapped = ask_both_orders(judge, benchmark, asked.comparisons(first, asked.other))
    again = [judging_of(benchmark).compare(other, asked.comparisons(first, asked.other)) for other in judges]
    shares = np.array([[share_of_first(judgment.value) for judgment in said] for said in again])
    empty = win_rate([CONSTANT] * asked.n, asked.other)
    injected = {
        name: win_rate([change(CONSTANT)] * asked.n, asked.other) - empty for name, change in INJECTIONS.items()
    }
    return {
        "unit": "points of win rate",
        "orders": order_effects(straight, swapped, TIE_WIDTH),
        "retest": repeated(shares, middle=0.5),
        "constant": at_most(empty, 50),
        "pad": at_most(win_rate([pad(text) for text in first], first), 50, strict=False),
        **{name: at_most(gain, 0, strict=False) for name, gain in injected.items()},
    }


def graded_checks(asked: Asked, judges: Sequence[Judge]) -> Record:
    """The checks of a benchmark that grades answers one by one; arguments as for `pairwise_checks`."""
    judge = judges[0]
    first = asked.grades(judge)
    again = [first, *(asked.grades(other) for other in judges[1:])]
    empty = asked.grades(judge, lambda _: CONSTANT)
    injected = {name: asked.grades(judge, lambda _, c=change: c(CONSTANT)) for name, change in INJECTIONS.items()}
    return {
        "unit": "grades",
        "orders": None,
        "retest": repeated(np.array(again), middle=None),
        "constant": at_most(empty - first, 0),
        "pad": at_most(asked.grades(judge, pad) - first, 0, strict=False),
        **{name: at_most(grades - empty, 0, strict=False) for name, grades in injected.items()},
    }


def repeated(ratings: np.ndarray, middle: float | None) -> Record | None:
    """Retest of ratings (repeats, items) as plain data; None if nothing was asked twice."""
    found = retest(ratings, middle)
    if found is None:
        return None
    values = dataclasses.asdict(found)
    return {key: None if value is not None and np.isnan(value) else value for key, value in values.items()}


def at_most(values: np.ndarray, bound: float, strict: bool = True) -> Record:
    """Test whether a mean stays below a bound.

    Args:
        values: (items,), NaN if unreadable.
        bound: value that an honest judge does not exceed.
        strict: the whole interval must be below the bound; otherwise it may include the bound.

    Returns:
        {value, ci_low, ci_high, n, bound, passed}; all but n and bound are None with fewer than two readable values.
    """
    n = int((~np.isnan(values)).sum())
    if n < 2:
        return {"value": None, "ci_low": None, "ci_high": None, "n": n, "bound": bound, "passed": None}
    estimate = bootstrap_mean(values)
    passed = estimate.high < bound if strict else estimate.low <= bound
    return {
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n": n,
        "bound": bound,
        "passed": bool(passed),
    }


def check_judge(experiment: Experiment, name: str, benchmark: str, n: int | None = None) -> Record:
    """All checks of one judge on one benchmark.

    Args:
        experiment: the experiment.
        name: the judge's.
        benchmark: its name.
        n: questions; those of the configuration if None.
    """
    trust = experiment.evaluation.trust
    model = models_of_run(experiment, evaluated_runs(experiment, benchmark)[-1])[-1]
    judges = [open_judge(experiment, name, model.world, sample=sample) for sample in range(trust.repeats)]
    asked = prepare(experiment, benchmark, model, n or trust.questions)
    checks = pairwise_checks if declaration(benchmark).pairwise else graded_checks
    found = {"benchmark": benchmark, "judge": describe_judge(experiment, name), "model": model.id, "n": asked.n}
    found |= checks(asked, judges)
    if trust.human_labels:
        for module in people_modules(benchmark):
            found["human"] = importlib.import_module(module).check(experiment, judges[0], found["judge"]["model"])
    return found


def main() -> None:
    """Command line: check a judge on all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge_checks", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--benchmark", nargs="+", help="default: the experiment's")
    parser.add_argument("--n", type=int, help="questions of each benchmark; default: evaluation.trust.questions")
    arguments = parser.parse_args()
    try:
        experiment = load_and_pin(arguments.config)
        for benchmark in arguments.benchmark or experiment.benchmarks:
            found = check_judge(experiment, arguments.judge, benchmark, arguments.n)
            write_json(experiment.results / "judge_checks" / benchmark / f"{arguments.judge}.json", found)
            print(json.dumps(found, indent=2))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
