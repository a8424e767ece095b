"""The plan of an experiment, registered before its first training run, and where the experiment departs from it.

    python -m reports.registration --config results/default/config.yaml     write plan.lock

The workflow writes plan.lock before it trains anything, and never again. It holds the claims, the margins, the
endpoint, the tests, the looks, the order of the worlds and every setting that results depend on, with a hash of each
section. The report compares it with what was run: each difference is a *deviation*, which stands beside the verdicts. A
plan.lock or a score file that was edited stops the report.

These hashes notice a change; they do not prove that nobody wrote the file anew. Who wants proof publishes plan.lock, or
its hash, when it is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from eval.checkpoints import judged_runs, models_of_run
from eval.records import score_digest
from metaapo.command import errors_in_one_sentence
from metaapo.config import ExperimentConfig
from metaapo.data import DataError, read_json, sha256_file, write_json
from metaapo.experiment import Experiment, load
from metaapo.provenance import git_commit
from reports.claims import CLAIMS
from reports.evidence import MARGINS, OVERALL, endpoint_of
from reports.parts import ALPHA, MAX_DF_PER_SEED

LOCK = "plan.lock"
# Where an experiment runs and what it is estimated to cost change no verdict.
NOT_PLANNED = ("hardware", "estimate", "assets_dir", "results_dir", "network", "design", "seeds")
LONGEST = 80  # characters of a value in a deviation


def plan_of(experiment: Experiment) -> dict[str, Any]:
    """What is registered: everything that decides the verdicts before the data do, as plain JSON data."""
    full, settings = experiment.registered, experiment.dump()
    worlds = settings["world"].pop("seeds")
    plan = {
        "claims": {claim.id: asdict(claim) for claim in CLAIMS},
        "margins": {name: MARGINS[name] for name in (*full.benchmarks, OVERALL[0])},
        "endpoint": endpoint_of(full),
        "tests": {"one_sided_level": ALPHA, "most_df_per_seed": MAX_DF_PER_SEED, "correction": "Holm"},
        "looks": {"looks": full.design.looks, "spending": full.design.spending},
        "replicates": {"seeds": list(full.seeds), "worlds": worlds},
        "settings": {key: value for key, value in settings.items() if key not in NOT_PLANNED},
    }
    return json.loads(json.dumps(plan))


def register(experiment: Experiment) -> None:
    """Write plan.lock."""
    plan = plan_of(experiment)
    write_json(
        experiment.results / LOCK,
        {
            "registered": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": git_commit(),
            "runs_before": [run.id for run in experiment.runs() if (experiment.run_path(run) / "run.json").exists()],
            "sha256": {section: _digest(value) for section, value in plan.items()},
            "plan": plan,
        },
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_lock(path: Path) -> dict[str, Any]:
    """plan.lock as it was written.

    Raises:
        DataError: it was edited: a section is not what its hash says.
    """
    lock = read_json(path)
    try:
        plan, hashes = lock["plan"], lock["sha256"]
        changed = [name for name in {*plan, *hashes} if _digest(plan.get(name)) != hashes.get(name)]
        lock["registered"], lock["runs_before"]  # noqa: B018 - both are read later
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a registered plan ({error}); restore it from the registered copy") from error
    if changed:
        raise DataError(
            f"{path}: {', '.join(sorted(changed))} changed since the plan was registered on {lock['registered']}; "
            "restore the file from the registered copy, and change the configuration instead: the report then lists "
            "the difference as a deviation"
        )
    return lock


def deviations(experiment: Experiment) -> list[str] | None:
    """How the experiment departs from its plan, one sentence per difference; None if no plan was registered.

    Raises:
        DataError: plan.lock was edited.
    """
    path = experiment.results / LOCK
    if not path.exists():
        return None
    lock = read_lock(path)
    planned, found = (dict(leaves(plan)) for plan in (lock["plan"], plan_of(experiment)))
    changed = [
        f"{key}: planned {_shown(planned, key)}, now {_shown(found, key)}"
        for key in dict.fromkeys([*planned, *found])
        if planned.get(key) != found.get(key) and not (key not in planned and found[key] == _defaults().get(key))
    ]
    return [*_late(experiment, lock), *changed]


@cache
def _defaults() -> dict[str, Any]:
    """The configuration's defaults as a plan names them: a key that came after a plan was made, and says what was so
    before, is no departure from it."""
    plain = ExperimentConfig.model_validate({"experiment": "x", "seeds": [0], "methods": {"none": {}}})
    return dict(leaves({"settings": plain.model_dump(mode="json")}))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, keyed by their path, such as "settings.train.lr"; lists are leaves."""
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, inner in value.items():
        yield from leaves(inner, f"{key}.{name}" if key else name)


def _shown(flat: dict[str, Any], key: str) -> str:
    text = json.dumps(flat[key], ensure_ascii=False) if key in flat else "nothing"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _late(experiment: Experiment, lock: dict[str, Any]) -> list[str]:
    """Whether runs were trained before the plan was registered, by its own list or by their dates."""
    early = set(lock["runs_before"])
    for run in experiment.runs():
        path = experiment.run_path(run) / "run.json"
        finished = read_json(path).get("finished") if path.exists() else None
        early |= {run.id} if finished and finished < lock["registered"] else set()
    if not early:
        return []
    return [f"registered: on {lock['registered']}, after {len(early)} training runs had finished, such as {min(early)}"]


def with_deviations(records: list[dict[str, Any]], experiment: Experiment) -> list[dict[str, Any]]:
    """The records of claims.json, each with the deviations that concern it: all but other claims' definitions."""
    found = deviations(experiment)
    return [record | {"deviations": _concerning(found, record["id"])} for record in records]


def _concerning(found: list[str] | None, claim: str) -> list[str] | None:
    if found is None:
        return None
    return [line for line in found if not line.startswith("claims.") or line.startswith(f"claims.{claim}.")]


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def check_scores(experiment: Experiment) -> None:
    """Check that score files are as they were written, and made of the judgments that are there.

    Without a plan.lock, files from before scores were hashed are accepted.

    Raises:
        DataError: a file was edited, or belongs to other judgments.
    """
    strict = (experiment.results / LOCK).exists()
    for benchmark in experiment.benchmarks:
        models = [m for run in judged_runs(experiment, benchmark) for m in models_of_run(experiment, run)]
        for judge in experiment.judges:
            paths = {model.id: model.judgments(experiment, benchmark, judge) for model in models}
            path = experiment.results / "scores" / benchmark / f"{judge}.json"
            document, items = read_json(path), path.with_suffix(".items.csv.gz").read_bytes()
            if "sha256" not in document and not strict:
                continue
            remedy = f"delete {path} and run the workflow again, which scores the judgments anew"
            if document.pop("sha256", None) != score_digest(document, items):
                raise DataError(f"{path}: it or {path.stem}.items.csv.gz changed since they were scored; {remedy}")
            for model, digest in document["depends_on"]["judgments"].items():
                if model in paths and sha256_file(paths[model]) != digest:
                    raise DataError(f"{paths[model]}: changed since it was scored; {remedy}")


def main() -> None:
    """Command line: python -m reports.registration --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.registration", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        register(load(arguments.config))


if __name__ == "__main__":
    main()
