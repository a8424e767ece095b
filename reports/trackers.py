"""Send the finished runs of an experiment to an experiment tracker: MLflow, or W&B's offline format.

    python -m reports.trackers --run results/default --to mlflow --out mlflow.db
    python -m reports.trackers --run results/default --to wandb --out wandb-runs

One tracked run per training run: its settings, its optimizer steps, its annotations and scores after every iteration,
and, as tags, commit and code hash. Training knows no tracker; everything is read from the results folder. Nothing is
sent: `mlflow ui --backend-store-uri sqlite:///mlflow.db` shows the first, `wandb sync` uploads the second.

Needs pip install '.[mlflow]' or '.[wandb]'.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from metaapo.data import DataError, read_json, read_jsonl
from metaapo.doors import command_line

SETTINGS = ("method", "module", "budget", "seed", "world", "params", "train", "sampling")  # of run.json
LONGEST_PARAM = 6000  # characters that MLflow keeps of a setting
BATCH = 1000  # metrics that MLflow takes at once


@dataclass(frozen=True)
class TrackedRun:
    """A training run as trackers see it.

    Attributes:
        name: such as "dpo/budget1.0/seed0".
        params: settings by dotted name.
        tags: what made the run, and when.
        steps: optimizer step, counted over all iterations -> metrics then; the last step of an iteration also has what
            the iteration cost and scored.
        finished: seconds since 1970.
        seconds: that training took.
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    steps: Mapping[int, Mapping[str, float]]
    finished: float
    seconds: float


def tracked_runs(results: str | Path) -> list[TrackedRun]:
    """Read the finished runs of an experiment.

    Args:
        results: its folder, such as results/default.

    Raises:
        DataError: there is no finished run, or a file cannot be read.
    """
    folder = Path(results)
    records = {path.parent: read_json(path) for path in sorted(folder.glob("runs/*/*/*/run.json"))}
    if not records:
        raise DataError(f"{folder}: no finished run (runs/METHOD/BUDGET/SEED/run.json); train first, with snakemake")
    scores = _scores(folder / "scores.csv")
    return [
        _tracked(run, run.relative_to(folder / "runs").as_posix(), record, scores) for run, record in records.items()
    ]


def _tracked(folder: Path, name: str, record: dict[str, Any], scores: Mapping[tuple[str, ...], float]) -> TrackedRun:
    settings = {
        key: record[key] for key in ("method", "module", "budget", "seed", "world", "params", "train", "sampling")
    }
    tags = {
        "commit": record["commit"],
        "code_sha256": record["code_sha256"],
        "experiment": record["config"]["experiment"],
    }
    steps: dict[int, dict[str, float]] = {}
    first = annotations = 0
    for iteration, summary in enumerate(record["iterations"], start=1):
        log = folder / f"iter{iteration}" / "train.jsonl"
        for row in read_jsonl(log) if log.is_file() else []:
            steps[first + row["step"]] = _numbers(row, "train/", leave_out=("iteration", "step"))
        first = max(steps, default=0)
        annotations += summary["responses_scored"]
        at = (*_key(record), str(iteration))
        steps.setdefault(first, {}).update(
            _numbers(summary, "iteration/", leave_out=("iteration",))
            | {"annotations": float(annotations)}
            | {f"{key[-2]}/{key[-1]}": value for key, value in scores.items() if key[:4] == at}
        )
    finished = datetime.fromisoformat(record["finished"]).timestamp()
    return TrackedRun(name, dict(_flat(settings)), tags, steps, finished, record["seconds"])


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["method"], str(record["budget"]), str(record["seed"])


def _scores(path: Path) -> dict[tuple[str, ...], float]:
    """(method, budget, seed, iteration, benchmark of a judge, metric) -> value; empty before the report."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["method"], row["budget"], row["seed"], row["iteration"], f"{row['benchmark']}-{row['judge']}",
             row["metric"].replace(":", "-")): float(row["value"])
            for row in csv.DictReader(file)
            if row["value"]
        }  # fmt: skip


def _numbers(row: Mapping[str, Any], prefix: str, leave_out: tuple[str, ...]) -> dict[str, float]:
    """The numbers of a log's row; what is missing in a row is left out."""
    found = row.items()
    return {f"{prefix}{k}": float(v) for k, v in found if type(v) in (int, float) and k not in leave_out}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def to_mlflow(runs: list[TrackedRun], database: Path) -> None:
    """Add the runs to an MLflow database; equal names in one experiment are told apart by their commit.

    Args:
        runs: of one experiment.
        database: a file, made if it does not exist.

    Raises:
        DataError: MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
    except ImportError as error:
        raise DataError("MLflow is not installed; run pip install '.[mlflow]'") from error
    database.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{database.resolve()}")
    name = runs[0].tags["experiment"]
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    for run in runs:
        end = round(1000 * run.finished)
        begun = client.create_run(experiment, start_time=end - round(1000 * run.seconds), run_name=run.name)
        key = begun.info.run_id
        params = [Param(name, value[:LONGEST_PARAM]) for name, value in run.params.items()]
        client.log_batch(key, params=params[:100], tags=[RunTag(*tag) for tag in run.tags.items()])
        for start in range(100, len(params), 100):
            client.log_batch(key, params=params[start : start + 100])
        metrics = [Metric(name, v, end, step) for step, row in run.steps.items() for name, v in row.items()]
        for start in range(0, len(metrics), BATCH):
            client.log_batch(key, metrics=metrics[start : start + BATCH])
        client.set_terminated(key, end_time=end)


def to_wandb(runs: list[TrackedRun], folder: Path) -> None:
    """Write the runs in W&B's offline format, for `wandb sync`.

    Args:
        runs: of one experiment, which becomes the project.
        folder: receives wandb/offline-run-*/.

    Raises:
        DataError: W&B is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise DataError("W&B is not installed; run pip install '.[wandb]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
    )
    for run in runs:
        with wandb.init(
            mode="offline",
            dir=str(folder),
            project=run.tags["experiment"],
            name=run.name,
            group=run.params["method"],
            config=dict(run.params) | dict(run.tags),
            settings=settings,
        ) as begun:
            for step, row in run.steps.items():
                begun.log(dict(row), step=step)


WRITERS = {"mlflow": to_mlflow, "wandb": to_wandb}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--run", required=True, help="results folder of an experiment, such as results/default")
    parser.add_argument("--to", required=True, choices=sorted(WRITERS), help="the tracker")
    parser.add_argument("--out", required=True, help="mlflow: the database file; wandb: the folder of offline runs")


def run(arguments: argparse.Namespace) -> int:
    """Write the runs. Returns the exit status: 0, or 2 with one sentence if that is impossible."""
    try:
        runs = tracked_runs(arguments.run)
        WRITERS[arguments.to](runs, Path(arguments.out))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(runs)} runs in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
