"""Check whether a reproduction agrees with the reference runs: one prediction interval per metric and one joint test.

    python -m reports.check --run results/default --reference docs/results/default

Reads scores.csv and claims.json of both folders; prints one JSON object and exits with status 1 if they disagree.

A method's scores are compared world by world (worlds are the unit of replication; seeds of one world are averaged), so
differences between worlds cancel. Let d be the differences run - reference over the W common worlds. If a reproduction
differs by training noise alone, the mean of d lies within +- t(W - 1) * sd(d) / sqrt(W) in 95 % of cases. With fewer
than two common worlds the interval is the one for a new sample of worlds: +- t(n - 1) * sd(reference) * sqrt(1 / n + 1
/ m).

One joint test decides, because five in a hundred intervals miss by chance. It takes the scores on the endpoint that the
reference registered (all scores if it registered none), since those decide the verdicts and dozens of secondary ones
would drown them. It compares the sum of their squared t statistics with its distribution when the signs of whole worlds
are flipped (exact for any correlation between scores; Fisher 1935, Good 2005). With fewer than six common worlds this
test cannot reach 5 %; the smallest p-value of the scores' t-tests decides instead, with a Bonferroni correction, which
takes larger differences to reject.

With the same seeds there is no noise where the arithmetic is the same. So if one method's scores are identical to the
last digit in all runs, every other method with the same seeds has to be identical too; one that is not was changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from metaapo.data import DataError, read_json, sha256_file, write_json
from metaapo.doors import command_line

LEVEL = 0.05
EXACT_UP_TO = 14  # up to this many worlds all (at most 2^13) sign patterns are tried; above, as many random ones
SCORE = ["method", "budget", "benchmark", "judge", "metric"]
ANNOTATIONS = (
    "",
    "",
    "annotation_ratio_total",
)  # benchmark, judge and metric of a run's realised budget
NEEDED = {*SCORE, "world", "iteration", "value", "annotation_ratio_total"}
# Verdicts that cannot both be right; "contradicted" was the word for the last three until 2026
REFUTED = ("worse", "equivalent", "no gain that matters", "contradicted")
OPPOSITE = {frozenset({"supported", verdict}) for verdict in REFUTED}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One method's score on one metric after the last iteration, in the metric's unit.

    Attributes:
        key: method, budget, benchmark, judge, metric.
        run: mean over worlds.
        reference: mean over worlds.
        low: lower end of the 95 % prediction interval of `run`; nan if a single world gives nothing to estimate it
            from.
        high: its upper end.
        differences: run - reference for each common world, (W,); empty if the interval compares samples of worlds.
        p_value: two-sided; nan if there is no interval.
    """

    key: tuple[str, ...]
    run: float
    reference: float
    low: float
    high: float
    differences: Floats
    p_value: float

    @property
    def inside(self) -> bool | None:
        """Whether the run's mean is in the interval; None if there is no interval."""
        return None if np.isnan(self.low) else bool(self.low <= self.run <= self.high)

    def record(self) -> dict[str, Any]:
        """The comparison as plain data, with None for missing values."""
        numbers = {"run": self.run, "reference": self.reference, "difference": self.run - self.reference}
        numbers |= {"low": self.low, "high": self.high, "p_value": self.p_value}
        rounded = {name: None if np.isnan(value) else float(f"{value:.6g}") for name, value in numbers.items()}
        return dict(zip(SCORE, self.key)) | rounded | {"inside": self.inside, "n_worlds": len(self.differences)}


def read_scores(folder: str | Path) -> pd.DataFrame:
    """Read the last iteration from scores.csv or scores.csv.gz, adding each run's realised budget as a metric.

    Raises:
        DataError: the file is missing or not a score table, or the experiment has no trained method.
    """
    paths = [Path(folder) / name for name in ("scores.csv", "scores.csv.gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{paths[0]}: no such file; give the results folder of a finished experiment")
    try:
        frame = pd.read_csv(path, dtype={"budget": str})
    except (ValueError, UnicodeDecodeError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a score table ({str(error).splitlines()[0]}); expected scores.csv") from error
    lacking = sorted(NEEDED - set(frame.columns))
    if lacking:
        raise DataError(f"{path}: missing columns {', '.join(lacking)}; expected an experiment's scores.csv")
    frame = frame[frame["iteration"] == frame["iteration"].max()]
    if not len(frame) or frame["iteration"].iloc[0] == 0:
        raise DataError(f"{path}: no trained method found; run the experiment to completion")
    budgets = frame.drop_duplicates(["method", "budget", "world", "seed"]).assign(
        value=lambda f: f.annotation_ratio_total
    )
    budgets = budgets.assign(**dict(zip(("benchmark", "judge", "metric"), ANNOTATIONS)))
    return pd.concat([frame, budgets], ignore_index=True).dropna(subset=["value"])


def by_world(frame: pd.DataFrame) -> dict[tuple[str, ...], pd.Series]:
    """Each score's values by world, averaged over the seeds of a world."""
    means = frame.groupby([*SCORE, "world"], sort=False)["value"].mean()
    return {key: values.droplevel(SCORE) for key, values in means.groupby(level=SCORE, sort=False)}


def compare_scores(run: pd.DataFrame, reference: pd.DataFrame) -> list[Comparison]:
    """Compare every score that appears in both tables.

    Raises:
        DataError: they have no score in common.
    """
    left, right = by_world(run), by_world(reference)
    found = [_compare(key, left[key], right[key]) for key in right if key in left]
    if not found:
        raise DataError("the run and the reference have no score in common; compare runs of the same experiment")
    return found


def _compare(key: tuple[str, ...], run: pd.Series, reference: pd.Series) -> Comparison:
    worlds = run.index.intersection(reference.index)
    if len(worlds) > 1:
        differences = (run[worlds] - reference[worlds]).to_numpy()
        means, df = (float(run[worlds].mean()), float(reference[worlds].mean())), len(worlds) - 1
        error = float(differences.std(ddof=1)) / np.sqrt(len(worlds))
    else:
        differences = np.zeros(0)
        means, df = (float(run.mean()), float(reference.mean())), len(reference) - 1
        spread = float(reference.std(ddof=1)) if df else np.nan
        error = spread * np.sqrt(1 / len(reference) + 1 / len(run))
    reach = stdtrit(df, 1 - LEVEL / 2) * error if df else np.nan
    return Comparison(key, *means, means[1] - reach, means[1] + reach, differences, _p_value(means, error, df))


def _p_value(means: tuple[float, float], error: float, df: int) -> float:
    distance = abs(means[0] - means[1])
    if not df or np.isnan(error):
        return np.nan
    if error == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * stdtr(df, -distance / error))


def joint_test(comparisons: list[Comparison], seed: int = 0) -> tuple[float, str]:
    """One p-value for "the run differs from the reference by training noise alone", and how it was found.

    Args:
        comparisons: one per score.
        seed: for random sign patterns, used if there are too many to try them all.

    Returns:
        (p-value, name of the test); (nan, "") if nothing can be tested.
    """
    worlds = max(len(c.differences) for c in comparisons)
    if worlds > 1 and not any(c.differences.any() for c in comparisons):
        return 1.0, f"none needed: no score differs in any of {worlds} worlds"
    full = [c.differences for c in comparisons if len(c.differences) == worlds > 1 and np.ptp(c.differences) > 0]
    if worlds >= 6 and full:
        return _sign_flip(np.array(full), seed), f"sign flips of {worlds} worlds, {len(full)} scores"
    tested = [c.p_value for c in comparisons if not np.isnan(c.p_value)]
    if not tested:
        return np.nan, ""
    return min(1.0, len(tested) * min(tested)), f"smallest of {len(tested)} t-tests, Bonferroni"


def _sign_flip(table: Floats, seed: int) -> float:
    """P-value of the sum of squared t statistics over a (scores, worlds) table.

    The last world keeps its sign: flipping all of them changes no square.
    """
    worlds = table.shape[1]
    if worlds <= EXACT_UP_TO:
        patterns = 1 - 2 * ((np.arange(2 ** (worlds - 1))[:, None] >> np.arange(worlds)) & 1)
    else:
        patterns = np.random.default_rng(seed).choice([-1, 1], size=(2 ** (EXACT_UP_TO - 1), worlds))
        patterns[0] = 1
    means = patterns @ table.T / worlds  # (patterns, scores)
    variances = ((table**2).mean(axis=1) - means**2) * worlds / (worlds - 1)
    squares = (means**2 / np.maximum(variances / worlds, np.finfo(float).tiny)).sum(axis=1)
    return float((squares >= squares[0] * (1 - 1e-12)).mean())


def registered_endpoint(folder: Path) -> tuple[str, str] | None:
    """(benchmark, metric) on which a folder's plan.lock decides the claims; None without one."""
    path = folder / "plan.lock"
    return tuple(read_json(path)["plan"]["endpoint"]) if path.is_file() else None


def _deciding(comparisons: list[Comparison], endpoint: tuple[str, str] | None) -> list[Comparison]:
    """Comparisons of scores on the endpoint; all of them without one."""
    return [c for c in comparisons if (c.key[2], c.key[4]) == endpoint] or comparisons


def changed_methods(run: pd.DataFrame, reference: pd.DataFrame, endpoint: tuple[str, str] | None = None) -> list[str]:
    """Methods whose scores differ although seeds and arithmetic are the same, which the equal scores of another method
    show; empty if no method's scores are equal throughout.

    Only the endpoint's scores are compared if there is one: those that are controlled for style depend on other models.
    """
    left, right = (_exact(frame, endpoint) for frame in (run, reference))
    equal = {arm: left[arm] == right[arm] for arm in right if arm in left and left[arm].keys() == right[arm].keys()}
    return sorted("/".join(arm) for arm, same in equal.items() if not same) if any(equal.values()) else []


def _exact(frame: pd.DataFrame, endpoint: tuple[str, str] | None) -> dict[tuple[str, str], dict[tuple, float]]:
    """Of each trained method and budget: every score of every run."""
    trained = frame[(frame["budget"].astype(float) > 0) & (frame["metric"] != ANNOTATIONS[2])]
    if endpoint:
        trained = trained[(trained["benchmark"] == endpoint[0]) & (trained["metric"] == endpoint[1])]
    keys = ["benchmark", "judge", "metric", "world", "seed"]
    return {arm: rows.set_index(keys)["value"].to_dict() for arm, rows in trained.groupby(["method", "budget"])}


def changed_conclusions(run: Path, reference: Path) -> list[dict[str, str]]:
    """Claims whose verdict differs: {id, run, reference}; empty if either folder has no claims.json."""
    paths = [folder / "claims.json" for folder in (run, reference)]
    if not all(path.is_file() for path in paths):
        return []
    left, right = ({claim["id"]: claim["verdict"] for claim in read_json(path)} for path in paths)
    return [{"id": i, "run": left[i], "reference": right[i]} for i in right if i in left and left[i] != right[i]]


def machine_of(folder: Path) -> dict[str, Any] | None:
    """The machine that a folder's runs used, from machine.json or the first run.json that records it, else None."""
    for path in (folder / "machine.json", *sorted((folder / "runs").glob("*/*/*/run.json"))):
        if path.is_file():
            record = read_json(path)
            found = record if path.name == "machine.json" else record.get("machine")
            if found:
                return found
    return None


def check(run: str | Path, reference: str | Path) -> dict[str, Any]:
    """The whole comparison as plain data.

    Returns:
        {agree, identical, changed, p_value, level, test, n_scores, outside, comparisons, only_in_run,
        only_in_reference, conclusions, machines}. They disagree if the joint p-value is below `level`, a method was
        changed, or a verdict is reversed.

    Raises:
        DataError: a folder has no score table, or the tables share no score.
    """
    run, reference = Path(run), Path(reference)
    tables = read_scores(run), read_scores(reference)
    comparisons = compare_scores(*tables)
    p_value, test = joint_test(_deciding(comparisons, registered_endpoint(reference)))
    changed = changed_methods(*tables, registered_endpoint(reference))
    conclusions = changed_conclusions(run, reference)
    opposite = any(frozenset({c["run"], c["reference"]}) in OPPOSITE for c in conclusions)
    left, right = (set(by_world(table)) for table in tables)
    return {
        "agree": not opposite and not changed and not p_value < LEVEL,
        "identical": _same_bytes(run, reference),
        "changed": changed,
        "p_value": None if np.isnan(p_value) else p_value,
        "level": LEVEL,
        "test": test or "none: with one world in common there is no spread to compare with",
        "n_scores": len(comparisons),
        "outside": sum(c.inside is False for c in comparisons),
        "expected_outside": round(LEVEL * sum(c.inside is not None for c in comparisons), 1),
        "conclusions": conclusions,
        "machines": {"run": machine_of(run), "reference": machine_of(reference)},
        "only_in_run": sorted("/".join(filter(None, key)) for key in left - right),
        "only_in_reference": sorted("/".join(filter(None, key)) for key in right - left),
        "comparisons": [c.record() for c in comparisons],
    }


def _same_bytes(run: Path, reference: Path) -> bool:
    paths = [folder / "scores.csv" for folder in (run, reference)]
    return all(path.is_file() for path in paths) and len({sha256_file(path) for path in paths}) == 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--run", required=True, help="results folder of the new run, such as results/default")
    parser.add_argument("--reference", default="docs/results/default", help="folder of the reference run")
    parser.add_argument("--out", help="also write the JSON object to this file")


def run(arguments: argparse.Namespace) -> None:
    """Compare two results folders; exit with status 1 if they disagree, 2 if they cannot be compared."""
    try:
        found = check(arguments.run, arguments.reference)
        if arguments.out:
            write_json(arguments.out, found)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["agree"] else 1)


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
