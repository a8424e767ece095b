"""How much of a training run is arithmetic: the time its floating-point operations take at this machine's peak.

    OMP_NUM_THREADS=1 python benchmarks/arithmetic_share.py --config results/default/config.yaml \
        --run metaapo/budget1.0/seed0 --run dpo/budget1.0/seed0

Trains each run twice from a copy of its worlds: once for its CPU seconds, imports left out, and once counting the
operations of its matrix products and attention (torch.utils.flop_counter). The peak is that of a large float32 matrix
product in one thread. A run that starts from another run's policy needs that run in the results folder. Prints a JSON
line per run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from metaapo.experiment import Run, load
from metaapo.train import train


def peak(size: int = 1024, seconds: float = 2.0) -> float:
    """Floating-point operations per second of a square float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    start, n = time.process_time(), 0
    while time.process_time() - start < seconds:
        a @ b
        n += 1
    return 2 * size**3 * n / (time.process_time() - start)


def cpu_seconds(config: Path, run: Run, within: AbstractContextManager) -> float:
    """CPU seconds of a run, trained from nothing below a temporary copy of what it needs."""
    experiment = load(config)
    with tempfile.TemporaryDirectory() as folder:
        copied = experiment.model_copy(update={"results_dir": folder})
        world = experiment.world_path(experiment.world_of(run.seed))
        shutil.copytree(world, copied.world_path(experiment.world_of(run.seed)))
        for needed in experiment.needs(run):
            shutil.copytree(experiment.run_path(needed), copied.run_path(needed))
        start = time.process_time()
        with within:
            train(copied, run)
        return time.process_time() - start


def main() -> None:
    """Command line: print one JSON line per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, type=Path, help="a finished experiment's configuration")
    parser.add_argument("--run", required=True, action="append", type=Run.parse, help="METHOD/budgetB/seedS")
    arguments = parser.parse_args()
    for run in arguments.run:
        counter = FlopCounterMode(display=False)
        cpu_seconds(arguments.config, run, counter)
        seconds, best = cpu_seconds(arguments.config, run, nullcontext()), peak()
        at_peak = counter.get_total_flops() / best
        numbers = {"seconds": seconds, "gflop": counter.get_total_flops() / 1e9, "peak_gflop_per_s": best / 1e9}
        numbers |= {"seconds_at_peak": at_peak, "share": at_peak / seconds}
        print(json.dumps({"run": run.id} | {name: round(value, 2) for name, value in numbers.items()}), flush=True)


if __name__ == "__main__":
    main()
