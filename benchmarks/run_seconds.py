"""CPU seconds of training runs and of their answers, in several trees and environments, in turn.

    python benchmarks/run_seconds.py --config results/default/config.yaml --run metaapo/budget1.0/seed0 \
        --variant before=../before --variant after=. --variant pinned=.,MKL_CBWR=COMPATIBLE,ATEN_CPU_CAPABILITY=avx2

The worlds of the configuration have to be there; each variant trains from a copy of them. CPU seconds (user + system)
are steadier than wall clock on a machine that others use too, and variants take turns, so ratios compare like with
like.
Several runs after --run share one training and one answering process, as with hardware.runs_per_job.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml


def cpu_seconds(command: list[str], tree: Path, environment: dict[str, str]) -> float:
    """User plus system seconds of a command that is run in a tree."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    surroundings = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"} | environment
    subprocess.run([sys.executable, *command], cwd=tree, env=surroundings, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(config: dict, runs: list[str], tree: Path, environment: dict[str, str]) -> dict[str, float]:
    """CPU seconds of training and answering; of training, wall-clock seconds by stage and the tokens it sampled."""
    worlds = (Path(config["results_dir"]) / config["experiment"]).glob("world*")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / config["experiment"]
        for world in worlds:
            shutil.copytree(world, results / world.name)
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config | {"results_dir": folder}))
        settings = ["--config", str(file), "--run", *runs]
        seconds = {"train": cpu_seconds(["-m", "metaapo.train", *settings], tree, environment)}
        records = [json.loads((results / "runs" / run / "run.json").read_text()) for run in runs]
        iterations = [summary for record in records for summary in record["iterations"]]
        for stage in ("score", "sample", "annotate", "train"):
            seconds[f"{stage}, wall"] = sum(summary["seconds"][stage] for summary in iterations)
        seconds["tokens"] = sum(summary["tokens_generated"] for summary in iterations)
        return seconds | {"answer": cpu_seconds(["-m", "eval.answer", *settings], tree, environment)}


def main() -> None:
    """Command line: print one JSON line per variant and round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="an experiment whose world is made")
    parser.add_argument("--run", nargs="+", required=True, help="METHOD/budgetB/seedS")
    parser.add_argument("--variant", action="append", required=True, help="NAME=TREE[,VARIABLE=VALUE...]")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    config = yaml.safe_load(Path(arguments.config).read_text(encoding="utf-8"))
    for _ in range(arguments.rounds):
        for variant in arguments.variant:
            name, _, rest = variant.partition("=")
            tree, *variables = rest.split(",")
            environment = dict(variable.split("=", 1) for variable in variables)
            seconds = measure(config, arguments.run, Path(tree).resolve(), environment)
            print(json.dumps({"variant": name, "runs": arguments.run} | {k: round(v, 2) for k, v in seconds.items()}))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
