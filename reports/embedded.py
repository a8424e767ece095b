"""What the page carries with it, so that it can be e-mailed: result files, run records, names, and how to cite it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from metaapo.data import read_json
from metaapo.experiment import SFT
from reports import paper, samples
from reports.check import machine_of
from reports.runs import Results
from reports.tables import BENCHMARKS, TITLES, name_of

FILES = (
    "scores.csv",
    "claims.json",
    "assay.json",
    "spec_curve.json",
    "curve.json",
    "health.json",
    "plan.lock",
    "config.yaml",
)


def files(results: Results) -> dict[str, str]:
    """The text of every result file that exists, by name."""
    paths = {name: results.folder / name for name in FILES}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}


def runs(results: Results) -> dict[str, dict[str, Any]]:
    """The record of every run, by its id; what all runs share is left to `shared`."""
    common = shared(results)
    return {
        run.id: {key: value for key, value in record.items() if common.get(key) != value or key in ("method", "seed")}
        | {"title": name_of(run.method, str(run.budget))}
        for run, record in results.records.items()
    }


def shared(results: Results) -> dict[str, Any]:
    """What every run's record says alike, such as packages and machine."""
    records = list(results.records.values())
    if not records:
        return {}
    return {key: value for key, value in records[0].items() if all(record.get(key) == value for record in records)}


def names(results: Results) -> dict[str, Any]:
    """Names and settings that the page's script shows in place of identifiers."""
    experiment = results.experiment
    methods = {name: name_of(name) for name in (SFT, *experiment.methods)}
    return {
        "methods": methods,
        "benchmarks": {name: TITLES[name] for name in experiment.benchmarks},
        "metrics": {name: {c.metric: c.words for c in BENCHMARKS[name].columns} for name in experiment.benchmarks},
        "pairwise": [name for name in experiment.benchmarks if BENCHMARKS[name].pairwise],
        "iterations": experiment.iterations,
        "judges": list(experiment.judges),
        "budgets": {name: str(max(method.budget)) for name, method in experiment.methods.items()},
        "manyWorlds": len(experiment.world.seeds) > 1,
    }


def answers(results: Results, browser: dict[str, Any]) -> dict[str, Any]:
    """The sample browser's data with the run of each model and display names; rubrics as lists, their names once."""
    models = [
        head | {"name": name_of(head["method"]), "run": model.run_id}
        for head, model in zip(browser["models"], samples.models(results))
    ]
    parts: list[str] = []

    def packed(grades: dict[str, float] | None) -> list[float | None] | None:
        if grades is None:
            return None
        parts.extend(name for name in grades if name not in parts)
        return [grades.get(name) for name in parts]

    questions = [
        question | {"a": [answer | {"g": [packed(grades) for grades in answer["g"]]} for answer in question["a"]]}
        for question in browser["questions"]
    ]
    return {"models": models, "questions": questions, "rubric": parts, "left_out": browser["left_out"]}


def provenance(results: Results) -> dict[str, Any]:
    """Date, hardware, code and data behind the page, and how to cite one of its figures."""
    records = list(results.records.values())
    commits = list(dict.fromkeys(str(record.get("commit", "unknown")) for record in records))
    dates = sorted(str(record["finished"]) for record in records if record.get("finished"))
    machine = machine_of(results.folder) or {}
    packages = list(
        dict.fromkeys(
            ", ".join(f"{k} {v}" for k, v in sorted(record.get("packages", {}).items())) for record in records
        )
    )
    text = "".join(files(results).get(name, "") for name in ("scores.csv", "claims.json"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = [f"{machine['cores']} cores"] if "cores" in machine else []
    known += [str(machine[key]) for key in ("processor", "gpu", "system", "instructions") if machine.get(key)]
    commit, date = (commits[0][:12] if commits else "unknown"), (dates[-1][:10] if dates else "unknown")
    return {
        "date": date,
        "commits": commits,
        "hardware": ", ".join(known) or "not recorded",
        "packages": packages,
        "sha256": digest,
        "paper": paper.VERSION,
        "citation": (
            f"MetaAPO reproducibility suite, experiment “{results.experiment.experiment}”, {date}, "
            f"commit {commit}, sha256 of scores.csv and claims.json {digest[:16]}; reproduces {paper.VERSION}."
        ),
        "plan": _plan(results),
    }


def _plan(results: Results) -> str:
    path = results.folder / "plan.lock"
    return f"registered {read_json(path)['registered'][:10]}" if path.exists() else "no plan was registered"


def script_json(document: Any) -> str:
    """JSON that is safe inside a script element: no text of a model can end the element or start a comment."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
