"""Train, evaluate and test up to the registered look at which every claim is decided or futile.

    snakemake decide --cores all --configfile config/<name>.yaml
    python -m reports.decide --config config/<name>.yaml [options of snakemake]

Runs the workflow as far as the look that has been reached, reads the verdicts and goes on to the next look if a claim
still needs it (docs/verdicts.md). The look is kept in results/<name>/look.json, so that the same command resumes after
a kill, and plain `snakemake` stays at the look reached. Nothing that exists is trained again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from metaapo.command import errors_in_one_sentence
from metaapo.config import ConfigError
from metaapo.data import read_json, write_json
from metaapo.experiment import REACHED_LOOK, Experiment, load


def decide(config: str, run: Callable[[], int]) -> int:
    """Run look after look.

    Args:
        config: the experiment's configuration file.
        run: runs the workflow once, as far as the look that has been reached; returns its exit status.

    Returns:
        The exit status: 0 if all looks that were needed are finished, else that of the workflow that failed.

    Raises:
        ConfigError: the experiment registers no looks.
    """
    if not load(config).design.looks:
        raise ConfigError(f"{config}: registers no looks; add `design: {{looks: [6, 9, 12]}}`, or run snakemake alone")
    while True:
        status = run()
        if status:
            return status
        experiment = load(config)
        records = read_json(experiment.results / "claims.json")
        print(summary(experiment, records), flush=True)
        if not any(record["looks"]["next"] for record in records):
            return 0
        write_json(experiment.results / REACHED_LOOK, {"look": experiment.design.look + 1})


def summary(experiment: Experiment, records: Sequence[dict[str, Any]]) -> str:
    """One line per claim, with its deviations from the plan."""
    look, looks = experiment.design.look, experiment.design.looks
    lines = [f"look {look} of {len(looks)}, {looks[look - 1]} {records[0]['replicates']}"]
    for record in records:
        lines.append(f"  {record['id']} {record['verdict']}{standing(record)}")
        lines += [f"    deviation: {deviation}" for deviation in record["deviations"] or []]
    return "\n".join(lines)


def standing(record: dict[str, Any]) -> str:
    """Where a claim stands in the registered design, in a few words; empty without one."""
    looks = record.get("looks")
    if not looks:
        return ""
    if looks["decided"]:
        return f", decided after {looks['decided']} {record['replicates']}"
    if looks["futile"]:
        return f", futile ({100 * looks['chance_by_last']:.0f} % chance of a decision by the last look)"
    return f", open until {looks['next']} {record['replicates']}" if looks["next"] else ""


def main() -> None:
    """Command line: python -m reports.decide --config FILE [options of snakemake]."""
    parser = argparse.ArgumentParser(prog="python -m reports.decide", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    arguments, options = parser.parse_known_args()
    command = [sys.executable, "-m", "snakemake", *options, "--configfile", arguments.config]
    with errors_in_one_sentence():
        sys.exit(decide(arguments.config, lambda: subprocess.run(command, check=False).returncode))


if __name__ == "__main__":
    main()
