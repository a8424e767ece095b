"""Stop the workflow after the report is written if a health check of the experiment or of a world is out of range.

    python -m reports.health_gate --config config/default.yaml

Reads health.json of the experiment and of its worlds; writes health.ok, or fails and lists the failed checks.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from metaapo.data import read_json, write_text
from metaapo.experiment import Experiment, load


def checks_of(document: Any) -> list[dict[str, Any]]:
    """The checks {name, value, low, high, ok, ...} of a health record, which is a list or contains one."""
    return document if isinstance(document, list) else document.get("checks", [])


def failures(documents: list[Any]) -> list[str]:
    """Names and values of the checks that are out of range, over all health records."""
    rows = [row for document in documents for row in checks_of(document) if row.get("ok") is False]
    return [f"{row['name']}: {row.get('value')}, expected {_range(row.get('low'), row.get('high'))}" for row in rows]


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def documents(experiment: Experiment) -> dict[str, Any]:
    """The existing health records, keyed by "world 0", ..., "experiment"."""
    folders = {f"world {world}": experiment.world_path(world) for world in experiment.world.seeds}
    paths = {name: folder / "health.json" for name, folder in (folders | {"experiment": experiment.results}).items()}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def main() -> None:
    """Command line: python -m reports.health_gate --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.health_gate", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    experiment = load(parser.parse_args().config)
    wrong = failures(list(documents(experiment).values()))
    if wrong and experiment.health.enforce:
        sys.exit(
            f"{experiment.results}/health.json: health checks failed, so the comparisons mean little: "
            f"{'; '.join(wrong)}; change the world or the training, or set health.enforce: false to continue anyway"
        )
    write_text(experiment.results / "health.ok", "\n".join(wrong or ["all checks are in range"]) + "\n")


if __name__ == "__main__":
    main()
