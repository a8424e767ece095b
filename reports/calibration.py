"""How often the verdicts are wrong: measured on effects of known size, and simulated for the whole procedure.

The measurements are those rows of assay.json that compare a method with planted answers or with itself. Few
experiments can afford them, so the rows of the kept assay (docs/results/assay) are shown for an experiment that was
planned with the same worlds, training, sampling, evaluation, endpoint and tests. The simulated rates are in
docs/results/error_rates.json (benchmarks/sequential_design.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metaapo import PROJECT
from metaapo.data import read_json
from reports.registration import LOCK, leaves, plan_of, read_lock
from reports.runs import Results

KEPT = PROJECT / "docs" / "results"
MEASURED = ("planted_", "aa_")
SHARED = ("margins", "endpoint", "tests")
SETTINGS = ("world", "train", "sampling", "evaluation", "iterations")


def calibration(results: Results, kept: Path = KEPT) -> dict[str, Any]:
    """What is known of the error rates.

    Returns:
        {source: where the rows were measured, "" if nowhere; rows: those of assay.json; simulated: [{truth, seed_sd,
        simulated, fixed, registered, unregistered}], shares of experiments}.
    """
    path = kept / "error_rates.json"
    simulated = read_json(path)["rows"] if path.exists() else []
    for source, folder in (("this experiment", results.folder), ("docs/results/assay", kept / "assay")):
        if folder == kept / "assay" and not _planned_alike(results, folder):
            continue
        rows = [row for row in _assay(folder) if row["name"].startswith(MEASURED)]
        if rows:
            return {"source": source, "rows": rows, "simulated": simulated}
    return {"source": "", "rows": [], "simulated": simulated}


def _assay(folder: Path) -> list[dict[str, Any]]:
    path = folder / "assay.json"
    return read_json(path) if path.exists() else []


def _planned_alike(results: Results, folder: Path) -> bool:
    """Whether the kept experiment was registered with all that its measurements depend on as in this one; a setting
    that only one of them has came later, with a default that changes nothing."""
    if not (folder / LOCK).exists():
        return False
    own, other = (dict(_settings(plan)) for plan in (plan_of(results.experiment), read_lock(folder / LOCK)["plan"]))
    return all(own[key] == other[key] for key in own.keys() & other.keys())


def _settings(plan: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from leaves({section: plan[section] for section in SHARED})
    yield from leaves({key: plan["settings"].get(key) for key in SETTINGS})
