"""Put a judge's error into the interval: correct it by a few gold labels, or treat several judges as a sample.

    python -m eval.judge_correction sample --scores scores/pooled/JUDGE.items.csv.gz --n 200 --out to_label.csv
    python -m eval.judge_correction correct --scores scores/pooled/JUDGE.items.csv.gz --gold labelled.csv
    python -m eval.judge_correction judges --scores scores/pooled/ONE.items.csv.gz scores/pooled/TWO.items.csv.gz

An interval over questions contains a judge's noise but not its bias. Two remedies:

- *Gold labels.* `sample` draws questions at random; people (or a better judge) give each model's answer to them a
  value in the judge's unit, such as 1, 0.5 and 0 for a win, a tie and a loss. `correct` estimates the mean gold value
  over all questions: the judge's mean over the unlabelled questions, less its measured error on the labelled ones
  (prediction-powered inference). The result is unbiased whatever the judge does, and never much less precise than the
  labels alone; the better the judge, the more it gains from the unlabelled questions.
- *Several judges.* `judges` treats judges as a random sample of judges, crossed with questions, so that the interval is
  about a judge like these rather than about these. It needs one file of scores for each judge (three or more to be of
  use), and says how much of the variance lies between judges.

Both print one JSON object, per model, or with `--against MODEL` per difference from that model, paired by question.
Files are CSV, plain or gzipped, with the columns question and value, and either model or method, budget, seed and
iteration, as in this project's items files. The assumptions: labelled questions are a random sample of the scored ones
(use `sample`), and questions are independent.

Simulated coverage at nominal 95 %, 512 questions of the tiny world, where the gold value is known (`python
benchmarks/judge_correction.py` prints this table):

| judge | its bias, points | labels | judge alone | labels alone | corrected | width, corrected / labels alone |
| --- | --- | --- | --- | --- | --- | --- |
| noisy | -0.4 | 20 | 0.94 | 0.92 | 0.90 | 0.38 |
| noisy | -0.4 | 50 | 0.94 | 0.94 | 0.92 | 0.42 |
| noisy | -0.4 | 200 | 0.94 | 0.95 | 0.95 | 0.66 |
| likes length | -23.4 | 20 | 0.00 | 0.92 | 0.92 | 0.82 |
| likes length | -23.4 | 50 | 0.00 | 0.94 | 0.93 | 0.83 |
| likes length | -23.4 | 200 | 0.00 | 0.95 | 0.95 | 0.88 |
| coin | -25.9 | 20 | 0.00 | 0.92 | 0.93 | 1.02 |
| coin | -25.9 | 50 | 0.00 | 0.94 | 0.94 | 1.01 |
| coin | -25.9 | 200 | 0.00 | 0.95 | 0.95 | 1.00 |
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from eval.stats import CONFIDENCE, Estimate, mean_over_seeds_and_prompts, variance_components
from metaapo.command import print_score, seed_argument
from metaapo.data import DataError, require_keys, write_text

Floats = NDArray[np.float64]
Values = dict[str, dict[str, float]]  # model -> question -> value
MODEL_COLUMNS = ("method", "budget", "seed", "iteration")
FEWEST_LABELS = 10  # with fewer, neither the judge's error nor its weight can be estimated
FEW_LABELS = 50  # with fewer, intervals cover too rarely, see the table above


@dataclass(frozen=True)
class Corrected:
    """A mean that is corrected for a judge's error (see `corrected_mean`).

    Attributes:
        corrected: the mean gold value.
        judge: the judge's mean over all questions, with the interval that ignores its error.
        gold: the mean over the labelled questions alone.
        weight: how far the judge's unlabelled judgments are used, 0 to 1.
        bias: the judge's mean error on the labelled questions.
        n_labelled: questions with a label.
    """

    corrected: Estimate
    judge: Estimate
    gold: Estimate
    weight: float
    bias: float
    n_labelled: int


def corrected_mean(judge: ArrayLike, gold: ArrayLike, confidence: float = CONFIDENCE) -> Corrected:
    """Mean gold value over all questions, from a judge's values of all and gold values of a random few.

    The estimate is mean(gold - weight * judge) over the labelled questions plus weight * mean(judge) over the others;
    the weight is the one that minimises its estimated variance (power tuning), within 0 and 1.

    Args:
        judge: (questions,) values; questions with NaN are left out.
        gold: (questions,) in the same unit; NaN if not labelled.
        confidence: nominal coverage.

    Returns:
        The estimate with a t-interval; the degrees of freedom are Satterthwaite's for its two independent means, one
        fewer on the labelled side for the weight.

    Raises:
        ValueError: fewer than 10 labelled questions that the judge judged, or fewer than 2 others.

    Source: Angelopoulos, Bates, Fannjiang, Jordan & Zrnic, "Prediction-powered inference", Science 382 (2023);
    Angelopoulos, Duchi & Zrnic, "PPI++: efficient prediction-powered inference" (2023, arXiv 2311.01453), section 6.
    """
    judge, gold = np.asarray(judge, float), np.asarray(gold, float)
    if judge.shape != gold.shape or judge.ndim != 1:
        raise ValueError(f"expected one judge's and one gold value per question; found {judge.shape} and {gold.shape}")
    known = ~np.isnan(judge)
    labelled = known & ~np.isnan(gold)
    others, paired, labels = judge[known & ~labelled], judge[labelled], gold[labelled]
    n, n_others = len(labels), len(others)
    if n < FEWEST_LABELS or n_others < 2:
        raise ValueError(
            f"a correction needs at least {FEWEST_LABELS} labelled questions and 2 others, found {n} and {n_others}; "
            "label more questions of those that were judged, or, if all are labelled, use the labels alone"
        )
    pooled = float(judge[known].var(ddof=1))
    covariance = float(np.cov(paired, labels)[0, 1])
    weight = float(np.clip(covariance / (pooled * (1 + n / n_others)), 0, 1)) if pooled > 0 else 0.0
    value = float((labels - weight * paired).mean() + weight * others.mean())
    # ddof 2 on the labelled side: the weight is fitted to the same labels
    parts = [float((labels - weight * paired).var(ddof=2)) / n, weight**2 * float(others.var(ddof=1)) / n_others]
    variance, spread = sum(parts), parts[0] ** 2 / (n - 2) + parts[1] ** 2 / (n_others - 1)
    df = variance**2 / spread if spread > 0 else n - 2.0
    stderr = math.sqrt(variance)
    half = float(stdtrit(df, (1 + confidence) / 2)) * stderr
    p_value = float(2 * stdtr(df, -abs(value) / stderr)) if stderr > 0 else float(value == 0)
    method = "prediction-powered mean, t over questions"
    return Corrected(
        Estimate(value, value - half, value + half, stderr, p_value, df, 1, n + n_others, method, confidence),
        mean_over_seeds_and_prompts(judge[known], confidence),
        mean_over_seeds_and_prompts(labels, confidence),
        weight,
        float((paired - labels).mean()),
        n,
    )


def read_values(path: str | Path) -> Values:
    """Model -> question -> value of a CSV file, plain or gzipped; rows without a value are left out.

    Raises:
        DataError: the file cannot be read, lacks a column, holds no number, or has a question of a model twice.
    """
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV file, plain or gzipped") from error
    found: Values = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        where = f"{path}:{number}"
        require_keys(row, ("question", "value", *(("model",) if "model" in row else MODEL_COLUMNS)), where)
        if not (row["value"] or "").strip():
            continue
        try:
            value = float(row["value"])
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise DataError(f"{where}: value is {row['value']!r}; expected a number, or nothing if there is none")
        of_model = found.setdefault(_model_of(row), {})
        if row["question"] in of_model:
            raise DataError(f"{where}: question {row['question']!r} of this model appears twice; remove one")
        of_model[row["question"]] = value
    if not found:
        raise DataError(f"{path}: no value; expected the columns question, value, and model or {MODEL_COLUMNS}")
    return found


def _model_of(row: Mapping[str, str]) -> str:
    if "model" in row:
        return row["model"]
    return "{method}/budget{budget}/seed{seed}/iter{iteration}".format(**row)


def _differences(values: Values, against: str | None) -> Values:
    """Values, or their differences from one model's on the questions that both have.

    Raises:
        DataError: there is no such model.
    """
    if against is None:
        return values
    if against not in values:
        raise DataError(f"model {against!r}: not in the scores or labels; known: {', '.join(values)}")
    base = values[against]
    return {
        model: {question: value - base[question] for question, value in of_model.items() if question in base}
        for model, of_model in values.items()
        if model != against
    }


def correct(scores: Values, gold: Values, against: str | None = None) -> dict[str, Any]:
    """Every model's mean, corrected by the gold labels of its answers.

    Args:
        scores: the judge's values.
        gold: gold values of some of the same answers.
        against: report differences from this model.

    Returns:
        {against, models: {model: {corrected, judge, gold (each {value, ci_low, ci_high, stderr}), bias, weight,
        n_labelled, n_questions}}, notes}, in the unit of the values.

    Raises:
        DataError: no model has labels, or too few.
    """
    scores = _differences(scores, against)
    gold = _differences(gold, against)
    unknown = sum(q not in scores.get(model, {}) for model, labels in gold.items() for q in labels)
    notes = [f"{unknown} labels belong to no judged answer and are left out"] if unknown else []
    models = {}
    for model in (model for model in scores if model in gold):
        judge = np.array(list(scores[model].values()))
        labels = np.array([gold[model].get(question, np.nan) for question in scores[model]])
        try:
            found = corrected_mean(judge, labels)
        except ValueError as error:
            raise DataError(f"model {model}: {error}") from error
        models[model] = {
            **{name: _plain(getattr(found, name)) for name in ("corrected", "judge", "gold")},
            **{name: getattr(found, name) for name in ("bias", "weight", "n_labelled")},
            "n_questions": found.corrected.n_prompts,
        }
        notes += _notes(model, judge, labels)
    if not models:
        raise DataError("the gold labels are of none of the scored models; give both files the same names of models")
    return {"against": against, "models": models, "notes": notes}


def _notes(model: str, judge: Floats, labels: Floats) -> list[str]:
    notes = []
    labelled = ~np.isnan(labels)
    if labelled.sum() < FEW_LABELS:
        notes.append(f"{model}: only {labelled.sum()} labels; a 95 % interval may then cover in only 90 % of cases")
    gap = judge[labelled].mean() - judge[~labelled].mean()
    error = math.sqrt(judge[labelled].var(ddof=1) / labelled.sum() + judge[~labelled].var(ddof=1) / (~labelled).sum())
    if abs(gap) > 3 * error > 0:
        notes.append(
            f"{model}: the judge scores the labelled questions {gap:+.3g} apart from the others, more than chance "
            "explains; the correction holds only if they were drawn at random"
        )
    return notes


def over_judges(scores: Sequence[Values], against: str | None = None) -> dict[str, Any]:
    """Every model's mean over judges and questions, both random.

    Args:
        scores: one judge's values each, of the same models and questions; others are left out.
        against: report differences from this model.

    Returns:
        {against, n_judges, models: {model: {value, ci_low, ci_high, stderr, sd_judges, sd_questions, sd_rest,
        n_questions}}}, in the unit of the values. `sd_judges` is the standard deviation between the judges' means of
        all judges; `sd_rest` that of judge times question, noise included.

    Raises:
        DataError: fewer than two judges, or no model and two questions that all have judged.

    Source: `eval.stats.mean_over_seeds_and_prompts` with judges in place of seeds; Brennan, Generalizability Theory
    (2001), chapter 2.
    """
    if len(scores) < 2:
        raise DataError("the judge as a source of variance needs the scores of two or more judges; give their files")
    tables = [_differences(values, against) for values in scores]
    models: dict[str, Any] = {}
    for model in (m for m in tables[0] if all(m in table for table in tables)):
        questions = [q for q in tables[0][model] if all(q in table[model] for table in tables)]
        if len(questions) < 2:
            continue
        values = np.array([[table[model][q] for q in questions] for table in tables])
        components = variance_components(values)
        models[model] = _plain(mean_over_seeds_and_prompts(values)) | {
            "sd_judges": math.sqrt(components.seed),
            "sd_questions": math.sqrt(components.prompt),
            "sd_rest": math.sqrt(components.residual),
            "n_questions": len(questions),
        }
    if not models:
        raise DataError("no model has two questions that all judges judged; give files of the same experiment")
    return {"against": against, "n_judges": len(scores), "models": models}


def _plain(estimate: Estimate) -> dict[str, Any]:
    kept = asdict(estimate)
    return {"value": kept["value"], "ci_low": kept["low"], "ci_high": kept["high"], "stderr": kept["stderr"]}


def sample(scores: Values, n: int, seed: int = 0) -> str:
    """CSV text with a line for every model's answer to n random questions, whose values are to be filled in.

    Raises:
        DataError: fewer than n + 2 questions were judged for every model.
    """
    questions = sorted(set.intersection(*(set(of_model) for of_model in scores.values())))
    if not FEWEST_LABELS <= n <= len(questions) - 2:
        raise DataError(
            f"--n is {n}; expected a number from {FEWEST_LABELS} to {len(questions) - 2}, two less than the questions "
            "that all models have"
        )
    drawn = np.random.default_rng(seed).choice(len(questions), n, replace=False)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "question", "value"])
    writer.writerows([model, questions[i], ""] for i in sorted(drawn) for model in scores)
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status: 0, or 2 for invalid input."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge_correction", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one, two, three = (
        commands.add_parser(name, help=text)
        for name, text in (
            ("sample", "draw the questions to label"),
            ("correct", "correct a judge's scores by gold labels"),
            ("judges", "mean over judges, with judges as a source of variance"),
        )
    )
    one.add_argument("--scores", required=True, help="values of one judge (CSV, .gz)")
    one.add_argument("--n", type=int, required=True, help="number of questions to label")
    one.add_argument("--seed", type=seed_argument, default=0, help="of the draw")
    one.add_argument("--out", required=True, help="file to fill in: model, question, value")
    two.add_argument("--scores", required=True, help="values of one judge (CSV, .gz)")
    two.add_argument("--gold", required=True, help="gold values of some of the same answers (CSV, .gz)")
    three.add_argument("--scores", nargs="+", required=True, help="values of each judge (CSV, .gz)")
    for command in (two, three):
        command.add_argument("--against", help="report differences from this model, paired by question")
        command.add_argument("--out", help="also write the JSON object to this file")
    args = parser.parse_args(arguments)
    if args.command == "sample":
        return print_score(lambda: _write_sample(args), None)
    if args.command == "correct":
        return print_score(lambda: correct(read_values(args.scores), read_values(args.gold), args.against), args.out)
    return print_score(lambda: over_judges([read_values(path) for path in args.scores], args.against), args.out)


def _write_sample(args: argparse.Namespace) -> dict[str, Any]:
    write_text(args.out, text := sample(read_values(args.scores), args.n, args.seed))
    return {"to_label": args.out, "n_answers": text.count("\n") - 1}


if __name__ == "__main__":
    raise SystemExit(main())
