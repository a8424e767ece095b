"""Score all models of an experiment on one benchmark by one judge.

    python -m eval.score --config results/default/config.yaml --benchmark alpacaeval2 --judge gold

Writes scores/{benchmark}/{judge}.json, which states benchmark version, judge, baseline and pool with every number, and
scores/{benchmark}/{judge}.items.csv.gz with one value per model and question, and one more column for each metric that
is no mean of these values (see `eval.benchmark.Scores`). This step neither answers nor judges anything.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from typing import Any

from eval.benchmark import Judged, Scores, questions_of, score_of, scoring_code
from eval.checkpoints import (
    EvaluatedModel,
    judged_runs,
    models_of_run,
    score_settings_of,
    sft_model,
)
from eval.judge import describe_judge
from eval.questions import SFT_BASELINE, Question, baseline_answers, baseline_of, load_questions
from eval.records import score_digest
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import DataError, read_records, sha256_file, write_bytes, write_json
from metaapo.experiment import Experiment, load

Record = dict[str, Any]
ITEM_COLUMNS = ("method", "budget", "seed", "iteration", "question", "value", "length", "category")
BOOTSTRAP_SEED = 0


def judged_models(experiment: Experiment, benchmark: str) -> list[EvaluatedModel]:
    """The models that a benchmark's judges see, SFT policies first."""
    return [model for run in judged_runs(experiment, benchmark) for model in models_of_run(experiment, run)]


def judged_records(
    experiment: Experiment, benchmark: str, judge: str, models: Sequence[EvaluatedModel], questions: list[Question]
) -> Judged:
    """The records that a benchmark's scorer receives.

    Raises:
        DataError: judgments are missing.
    """
    judgments = {model.id: read_records(model.judgments(experiment, benchmark, judge)) for model in models}
    return Judged(
        judgments=judgments,
        questions=[question.record for question in questions],
        answers=lambda: [row for model in models for row in read_records(model.answers(experiment, benchmark))],
        baseline_answers=lambda: _baseline_answers(experiment, benchmark, models, judgments, questions),
        sft_baseline=baseline_of(experiment, benchmark) == SFT_BASELINE,
    )


def _baseline_answers(
    experiment: Experiment,
    benchmark: str,
    models: Sequence[EvaluatedModel],
    judgments: dict[str, list[Record]],
    questions: list[Question],
) -> list[Record]:
    """The baseline's answers to the questions that were judged."""
    worlds = {model.world for model in models}
    if baseline_of(experiment, benchmark) == SFT_BASELINE:
        return [row for w in worlds for row in read_records(sft_model(w).answers(experiment, benchmark))]
    question_of = questions_of(benchmark).question_of
    judged = {question_of(row) for rows in judgments.values() for row in rows}
    return baseline_answers(experiment, benchmark, min(worlds), [q for q in questions if q.id in judged])


def _model_columns(model: EvaluatedModel) -> Record:
    return {
        "method": model.run.method,
        "budget": str(model.run.budget),
        "seed": model.run.seed,
        "world": model.world,
        "iteration": model.iteration,
    }


def score_benchmark(experiment: Experiment, benchmark: str, judge: str) -> None:
    """Write the scores of all models on one benchmark by one judge.

    Raises:
        DataError: answers or judgments are missing.
    """
    models = judged_models(experiment, benchmark)
    asked = load_questions(experiment, benchmark, models[0].world)
    judged = judged_records(experiment, benchmark, judge, models, asked.questions)
    scores = score_of(benchmark).score_models(judged, experiment.evaluation, BOOTSTRAP_SEED)
    _check_scored(scores, benchmark, judge)
    columns = {model.id: _model_columns(model) for model in models}
    order = list(columns)
    rows = [columns[name] | scores.rows[name] for name in sorted(scores.rows, key=order.index)]
    path = experiment.results / "scores" / benchmark / f"{judge}.json"
    items = items_csv(columns[item["model"]] | item for item in scores.items)
    write_bytes(path.with_suffix(".items.csv.gz"), items)
    document = {
        "benchmark": benchmark,
        "version": scores.version,
        "judge": judge,
        "baseline": SFT_BASELINE if judged.sft_baseline else scores.baseline,
        "judge_model": describe_judge(experiment, judge),
        "questions": {"source": asked.source, "sha256": asked.sha256, "n": len(asked.questions)},
        "bootstrap_seed": BOOTSTRAP_SEED,
        "depends_on": {
            "code": scoring_code(benchmark),
            "settings": score_settings_of(experiment, benchmark),
            "judgments": {m.id: sha256_file(m.judgments(experiment, benchmark, judge)) for m in models},
        },
        "notes": scores.notes,
    }
    document |= scores.details | {"rows": rows}
    write_json(path, document | {"sha256": score_digest(document, items)})


def _check_scored(scores: Scores, benchmark: str, judge: str) -> None:
    """Refuse models without any readable judgment, which have no score to report.

    Raises:
        DataError: a model has no score; the message names it and says what to do.
    """
    for model, row in scores.rows.items():
        if not row["n"]:
            raise DataError(
                f"{benchmark}: no judgment of {model} by {judge} can be read, so it has no score; judge it again "
                "(python -m eval.judge --ask-again), or remove the judge from evaluation.judges"
            )


def items_csv(items: Iterable[Record]) -> bytes:
    """Values of single questions as gzipped CSV, controlled metrics in the last columns; equal values give equal
    bytes."""
    rows = list(items)
    known = {*ITEM_COLUMNS, "model", "world"}
    controlled = sorted({key for row in rows for key in row} - known)
    text = io.StringIO()
    writer = csv.DictWriter(text, (*ITEM_COLUMNS, *controlled), extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), mtime=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: score one benchmark by one judge."""
    parser = experiment_arguments("Score one benchmark by one judge.")
    parser.add_argument("--benchmark", required=True, help="the benchmark's name")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    args = parser.parse_args(arguments)
    with errors_in_one_sentence():
        score_benchmark(load(args.config), args.benchmark, args.judge)


if __name__ == "__main__":
    main()
