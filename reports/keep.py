"""Keep an experiment's results for the record: a small folder with a page whose every number comes from its files.

    python -m reports.keep --config config/default.yaml --out docs/results/default --command "make reproduce"

Copies the files in FILES, and writes machine.json, worlds.sha256 and README.md. A file notes.md that is already in the
folder is appended to the page: what a person adds, without numbers of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metaapo.command import errors_in_one_sentence
from metaapo.data import read_json, sha256_file, write_bytes, write_json, write_text
from metaapo.experiment import load
from reports.check import machine_of
from reports.page import assay_view, health_view
from reports.runs import Results
from reports.timings import rule_seconds

FILES = (
    "plan.lock",
    "scores.csv",
    "claims.json",
    "assay.json",
    "curve.json",
    "spec_curve.json",
    "health.json",
    "report/budget.png",
)


def keep(results: Results, out: Path, command: str) -> None:
    """Write the folder.

    Args:
        results: of a finished experiment.
        out: the folder.
        command: how the results were made, as a reader would repeat it.
    """
    for name in (*FILES, *(f"report/main_{judge}.md" for judge in results.experiment.judges)):
        if (results.folder / name).exists():
            write_bytes(out / Path(name).name, (results.folder / name).read_bytes())
    write_json(out / "machine.json", machine_of(results.folder))
    pairs = [results.experiment.world_path(world) / "data" / "pairs.jsonl" for world in results.experiment.world.seeds]
    write_text(out / "worlds.sha256", "".join(f"{sha256_file(path)}  {path}\n" for path in pairs))
    write_text(out / "README.md", page(results, out, command))


def page(results: Results, out: Path, command: str) -> str:
    """The page in Markdown."""
    experiment = results.experiment
    sections = [
        f"# Results of the experiment `{experiment.experiment}`",
        _provenance(results, command),
        *(["![Win rate against annotation budget](budget.png)"] if (out / "budget.png").exists() else []),
        *((results.folder / "report" / f"main_{judge}.md").read_text().strip() for judge in experiment.judges),
        "## Could this experiment have seen it?",
        markdown(("question", "value", "95 % interval", "required", "note"), _assay_rows(results)),
        "## Verdicts",
        markdown(("claim", "verdict", "why"), _claim_rows(results)),
        "## Health",
        markdown(("check", "value", "required", "note"), _health_rows(results)),
        *([(out / "notes.md").read_text().strip()] if (out / "notes.md").exists() else []),
    ]
    return "\n\n".join(sections) + "\n"


def _provenance(results: Results, command: str) -> str:
    records = list(results.records.values())
    machine = machine_of(results.folder) or {}
    commits = sorted({str(record.get("commit", "unknown"))[:12] for record in records})
    finished = max(record["finished"] for record in records)[:10]
    seconds = sum(row["seconds"] for row in rule_seconds(results.folder))
    experiment = results.experiment
    computer = f"{machine.get('cores', '?')} cores of {machine.get('processor', 'an unknown processor')}"
    details = ", ".join(str(machine[key]) for key in ("system", "instructions") if key in machine)
    return (
        f"Made with `{command}` at commit {', '.join(commits)}, finished on {finished}, on {computer} ({details}). "
        f"{len(records)} training runs of {experiment.iterations} iterations in {len(experiment.world.seeds)} worlds; "
        f"{seconds / 60:.0f} minutes of jobs, of which several run at a time. This page is made by "
        "`python -m reports.keep`; every number on it comes from the files beside it."
    )


def _assay_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for row in assay_view(results):
        required = row["range"] + ("" if row["ok"] is None else " (yes)" if row["ok"] else " (**no**)")
        yield row["question"], f"{row['value']} {row['unit']}".strip(), row["interval"], required, row["note"]


def _claim_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for claim in results.claims:
        deviations = "".join(f"; deviation: {deviation}" for deviation in claim.get("deviations") or [])
        yield f"**{claim['id']}** {claim['statement']}", f"**{claim['verdict']}**", claim["reason"] + deviations


def _health_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for row in health_view("health", read_json(results.folder / "health.json"), results)["rows"]:
        required = row["range"] + ("" if row["ok"] or not row["range"] else " (**no**)")
        yield row["name"], f"{row['value']} {row['unit']}".strip(), required, row["note"]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def main() -> None:
    """Command line: keep the results of a finished experiment."""
    parser = argparse.ArgumentParser(prog="python -m reports.keep", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    parser.add_argument("--out", required=True, type=Path, help="the folder, such as docs/results/default")
    parser.add_argument("--command", required=True, help="how the results were made")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        keep(Results(load(arguments.config)), arguments.out, arguments.command)
        print(arguments.out / "README.md", file=sys.stderr)


if __name__ == "__main__":
    main()
