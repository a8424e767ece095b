"""Pack an experiment as a Workflow Run RO-Crate: what ran, on what, with which results, in words that machines read.

    python -m reports.crate --run results/default --out default-crate

The crate holds the workflow's Snakefile, the resolved configuration, scores, verdicts, health, the report and the
record of every training run. Each training run is an action of its own with its annotations, commit and packages. The
crate follows the profile Workflow Run Crate 0.5; `rocrate-validator validate default-crate` (package roc-validator)
checks it.

Needs the package rocrate: pip install '.[crate]'.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaapo import PROJECT
from metaapo.data import DataError, read_json, read_yaml
from metaapo.doors import command_line

if TYPE_CHECKING:
    from rocrate.model.file import File
    from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
PAPER = "https://arxiv.org/abs/2509.23371"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
INPUTS = {"config.yaml": ("the resolved configuration", "application/yaml")}
RESULTS = {
    "scores.csv": ("one row per method, budget, seed, iteration, benchmark and metric", "text/csv"),
    "claims.json": ("the paper's claims and their verdicts", "application/json"),
    "health.json": ("checks of the worlds and the runs", "application/json"),
    "report/index.html": ("the report", "text/html"),
}


def crate_of(results: str | Path, organization: str = "") -> ROCrate:
    """Describe a finished experiment.

    Args:
        results: its folder, such as results/default.
        organization: who ran it; empty: nobody is named.

    Raises:
        DataError: the package rocrate or a result is missing, or a file cannot be read.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError as error:
        raise DataError("the package rocrate is not installed; run pip install '.[crate]'") from error
    folder = Path(results)
    for name in (*INPUTS, *RESULTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: {name} is missing; finish the experiment first, with snakemake")
    records = {path: read_json(path) for path in sorted(folder.glob("runs/*/*/*/run.json"))}
    experiment = read_yaml(folder / "config.yaml", "a configuration file")["experiment"]
    crate = ROCrate(version="1.1")  # which the profiles build on
    crate.name = f"Experiment {experiment}: MetaAPO and its baselines"
    crate.description = "Training, evaluation and verdicts of one experiment of the MetaAPO reproducibility suite."
    crate.license = _add(crate, LICENSE, "CreativeWork", name="Apache License 2.0", identifier="Apache-2.0")
    agent = [_add(crate, "#organization", "Organization", name=organization)] if organization else []
    if agent:
        crate.root_dataset["author"] = crate.root_dataset["publisher"] = agent[0]
    profiles = [
        _add(crate, address, "CreativeWork", name=name, version=address.rpartition("/")[2])
        for address, name in PROFILES.items()
    ]
    crate.root_dataset["conformsTo"] = profiles
    title = {"name": "MetaAPO, put to the test", "encodingFormat": "text/x-python", "url": PAPER}
    workflow = crate.add_workflow(PROJECT / "Snakefile", "Snakefile", main=True, lang="snakemake", properties=title)
    inputs = [_file(crate, folder, name, *words) for name, words in INPUTS.items()]
    outputs = [_file(crate, folder, name, *words) for name, words in RESULTS.items()]
    actions = [_training(crate, folder, path, record, inputs, agent) for path, record in records.items()]
    whole = _add(
        crate,
        "#workflow-run",
        "CreateAction",
        name=f"Run of the experiment {experiment}",
        agent=agent,
        instrument=workflow,
        object=inputs,
        result=outputs,
        endTime=datetime.fromtimestamp((folder / "claims.json").stat().st_mtime, UTC).isoformat(timespec="seconds"),
    )
    crate.root_dataset["mentions"] = [whole, *actions]
    return crate


def _training(
    crate: ROCrate, folder: Path, path: Path, record: dict[str, Any], inputs: list[File], agent: list[Any]
) -> Any:
    """Describe one training run as an action."""
    finished = datetime.fromisoformat(record["finished"])
    run = path.parent.relative_to(folder / "runs").as_posix()
    made = _file(crate, folder, f"runs/{run}/run.json", "the record of a training run", "application/json")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(record["packages"].items()) if version)
    trainer = _add(
        crate,
        f"#trainer-{record['module']}-{record['commit'][:12]}",
        "SoftwareApplication",
        name=f"metaapo.train with {record['module']}",
        url=PAPER,
        softwareVersion=record["commit"],
        softwareRequirements=packages,
    )
    return _add(
        crate,
        f"#train-{run.replace('/', '-')}",
        "CreateAction",
        name=f"Training run {run}",
        agent=agent,
        instrument=trainer,
        object=inputs,
        result=[made],
        startTime=(finished - timedelta(seconds=record["seconds"])).isoformat(timespec="seconds"),
        endTime=finished.isoformat(timespec="seconds"),
        description=f"{record['totals']['responses_scored']} annotations, {record['seconds']:.0f} seconds",
    )


def _file(crate: ROCrate, folder: Path, name: str, words: str, media_type: str) -> File:
    return crate.add_file(
        folder / name, name, properties={"name": name, "description": words, "encodingFormat": media_type}
    )


def _add(crate: ROCrate, address: str, kind: str, /, **properties: Any) -> Any:
    from rocrate.model.contextentity import ContextEntity

    found = crate.add(ContextEntity(crate, address, properties={"@type": kind}))
    for key, value in properties.items():
        if value != []:
            found[key] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--run", required=True, help="results folder of a finished experiment, such as results/default")
    parser.add_argument("--organization", default="", help="who ran the experiment; default: nobody is named")
    parser.add_argument("--out", required=True, help="the new folder for the crate")


def run(arguments: argparse.Namespace) -> int:
    """Write the crate. Returns the exit status: 0, or 2 with one sentence if that is impossible."""
    out = Path(arguments.out)
    try:
        if out.exists():
            raise DataError(f"{out}: exists already; name a new folder with --out")
        crate_of(arguments.run, arguments.organization).write(out)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out / "ro-crate-metadata.json")
    return 0


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
