"""Whether models keep their ranks when a judge is replaced: Kendall's tau between judges, with its interval.

    python -m eval.rank_agreement --config results/default/config.yaml

Reads existing scores (scores/{benchmark}/{judge}.items.csv.gz). A new judge added under evaluation.judges judges the
stored answers; no answer is regenerated. Only models judged by both judges are compared.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.stats import rank_stability
from metaapo.data import DataError, write_json
from metaapo.experiment import Experiment, load

Items = Mapping[tuple[str, ...], Mapping[str, float]]


def read_items(path: Path, column: str = "value") -> Items:
    """Model -> question -> value (or another column) of one judge's items file; empty cells are left out."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); score this judge first (eval.score)") from error
    table: dict[tuple[str, ...], dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row[column]:
            model = tuple(row[key] for key in ("method", "budget", "seed", "iteration"))
            table.setdefault(model, {})[row["question"]] = float(row[column])
    return table


def compare_judges(one: Items, two: Items) -> dict[str, Any]:
    """Rank stability of the models that two judges have in common.

    Returns:
        {tau, ci_low, ci_high, n_models, n_questions}; tau is None with fewer than two models in common.
    """
    models = [model for model in one if model in two]
    questions = [
        question
        for question in next(iter(one.values()), {})
        if all(question in table[model] for table in (one, two) for model in models)
    ]
    counts = {"n_models": len(models), "n_questions": len(questions)}
    if len(models) < 2 or len(questions) < 2:
        return {"tau": None, "ci_low": None, "ci_high": None, **counts}
    tables = [
        np.array([[table[model][question] for question in questions] for model in models]) for table in (one, two)
    ]
    estimate = rank_stability(*tables)
    numbers = {"tau": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    # Tau is undefined for a judge that gives all models the same rank.
    return {name: None if np.isnan(value) else value for name, value in numbers.items()} | counts


def rank_agreements(experiment: Experiment, judges: Sequence[str]) -> list[dict[str, Any]]:
    """One row per benchmark and pair of judges: {benchmark, judges, tau, ci_low, ci_high, n_models, n_questions}."""
    rows = []
    for benchmark in experiment.benchmarks:
        folder = experiment.results / "scores" / benchmark
        items = {judge: read_items(folder / f"{judge}.items.csv.gz") for judge in judges}
        for one, two in itertools.combinations(judges, 2):
            rows.append({"benchmark": benchmark, "judges": [one, two], **compare_judges(items[one], items[two])})
    return rows


def main() -> None:
    """Command line: compare judges; writes rank_agreement.json and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m eval.rank_agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", nargs="+", help="names to compare; default: the experiment's judges")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        judges = arguments.judge or experiment.judges
        if len(judges) < 2:
            raise DataError("rank agreement needs two or more judges; name them with --judge or in evaluation.judges")
        rows = rank_agreements(experiment, judges)
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_json(experiment.results / "rank_agreement.json", rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
