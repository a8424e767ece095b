"""Collect all scores of an experiment, with the annotations each model used, into one table, scores.csv.

    python -m reports.collect --config config/default.yaml

One row per model x benchmark x judge x metric. The budget columns come from the run's annotation ledger, never from the
configuration: `annotations` is the number of responses scored by the reward model up to and including the
row's iteration, and both ratios are relative to Online DPO, which scores K responses for every prompt.
"""

from __future__ import annotations

import argparse
import csv
import io
from itertools import accumulate
from typing import Any

from eval.checkpoints import planted_runs
from metaapo.data import DataError, read_json, require_keys, write_text
from metaapo.experiment import Experiment, Run, load
from reports import roles

COLUMNS = (
    *("experiment", "method", "budget", "seed", "world", "iteration", "benchmark", "version", "judge", "metric"),
    *("value", "ci_low", "ci_high", "stderr", "n", "n_failed"),
    *("annotations", "annotation_ratio", "annotation_ratio_total", "mean_length", "flag"),
)
MODEL_KEYS = ("method", "budget", "seed", "world", "iteration")
NO_ANNOTATIONS = {"annotations": 0, "annotation_ratio": 0.0, "annotation_ratio_total": 0.0}
Model = tuple[str, str, int, int]


def responses_per_prompt(experiment: Experiment) -> int:
    """Online DPO's K, the unit of every annotation ratio; the experiment's K if Online DPO is not trained."""
    name = roles.first_that(experiment, roles.full_budget)
    return (experiment.sampling_of(name) if name else experiment.sampling).k


def share(part: float, whole: float) -> float:
    """part / whole; 0 if whole is 0 (a released checkpoint has no prompts)."""
    return part / whole if whole else 0.0


def ledger(summaries: list[dict[str, Any]], k: int) -> list[dict[str, float]]:
    """The budget columns after each iteration of one run.

    Args:
        summaries: one summary per iteration, in order, with `responses_scored` and `prompts`.
        k: responses that Online DPO scores per prompt.

    Returns:
        One mapping per iteration: annotations (responses, cumulative), annotation_ratio (this iteration) and
        annotation_ratio_total (cumulative), both relative to Online DPO over the same iterations.
    """
    scored = [summary["responses_scored"] for summary in summaries]
    full = [k * summary["prompts"] for summary in summaries]
    return [
        {
            "annotations": total,
            "annotation_ratio": share(now, full_now),
            "annotation_ratio_total": share(total, reference),
        }
        for now, full_now, total, reference in zip(scored, full, accumulate(scored), accumulate(full))
    ]


def ledgers(experiment: Experiment) -> dict[Model, dict[str, float]]:
    """The budget columns of every trained model, by (method, budget, seed, iteration).

    Raises:
        DataError: a run of the experiment is missing or is not finished.
    """
    k = responses_per_prompt(experiment)
    columns = {}
    for run in experiment.compared_runs():
        path = experiment.run_path(run) / "run.json"
        record = read_json(path)
        require_keys(record, ("iterations",), str(path))
        if len(record["iterations"]) < experiment.iterations:
            raise DataError(
                f"{path}: holds {len(record['iterations'])} of {experiment.iterations} iterations; "
                "train this run to the end"
            )
        for iteration, row in enumerate(ledger(record["iterations"], k), start=1):
            columns[(run.method, str(run.budget), run.seed, iteration)] = row
    return columns


def score_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """All rows of scores.csv, in the order benchmark, judge, model, metric; what only the assay compares is left out.

    Raises:
        DataError: a score file or run is missing, or a score does not belong to any run of the experiment.
    """
    budgets = ledgers(experiment)
    left_out = {experiment.assay.aa, *(run.method for run in planted_runs(experiment))}
    rows = []
    for benchmark in experiment.benchmarks:
        for judge in experiment.judges:
            path = experiment.results / "scores" / benchmark / f"{judge}.json"
            document = read_json(path)
            require_keys(document, ("benchmark", "version", "judge", "rows"), str(path))
            head = {"experiment": experiment.experiment, "benchmark": benchmark}
            head |= {"version": document["version"], "judge": document["judge"]}
            for row in document["rows"]:
                if row["method"] in left_out:
                    continue
                rows += [head | cells for cells in _metric_rows(row, budgets, str(path))]
    return rows


def _metric_rows(row: dict[str, Any], budgets: dict[Model, dict[str, float]], where: str) -> list[dict[str, Any]]:
    """One model's score record as one row per metric."""
    require_keys(row, (*MODEL_KEYS, "metrics", "n", "n_failed"), where)
    key = (row["method"], str(row["budget"]), row["seed"], row["iteration"])
    if row["method"] == "sft":
        budget = NO_ANNOTATIONS
    elif key in budgets:
        budget = budgets[key]
    else:
        run = Run(method=row["method"], budget=float(row["budget"]), seed=row["seed"])
        raise DataError(
            f"{where}: {run.id} iteration {row['iteration']} does not belong to any run of the configuration; "
            "score again, or use the configuration that produced the scores"
        )
    model = {name: row[name] for name in MODEL_KEYS}
    counts = {"n": row["n"], "n_failed": row["n_failed"], "mean_length": row.get("mean_length")}
    return [model | {"metric": metric} | values | counts | budget for metric, values in row["metrics"].items()]


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text with the columns COLUMNS; numbers in their shortest exact form, empty if missing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def collect(experiment: Experiment) -> None:
    """Write scores.csv into the experiment's results."""
    write_text(experiment.results / "scores.csv", to_csv(score_rows(experiment)))


def main() -> None:
    """Command line: python -m reports.collect --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.collect", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    collect(load(parser.parse_args().config))


if __name__ == "__main__":
    main()
