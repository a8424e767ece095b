"""Train one run: `python -m metaapo.train --config results/default/config.yaml --run dpo/budget1.0/seed0`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from metaapo.config import ConfigError, Run, load, module_of
from metaapo.data import DataError


def main() -> None:
    """Read the configuration, build the method and run its iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a configuration file")
    parser.add_argument("--run", required=True, help="METHOD/budgetB/seedS")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        run = Run.parse(arguments.run)
        if run.id not in experiment.run_ids():
            raise ConfigError(f"run {run.id}: not in this experiment; its runs: {', '.join(experiment.run_ids())}")
        train(experiment, run)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


def train(experiment, run: Run) -> None:  # noqa: ANN001 - typed below, torch is imported late
    """Train a run whose configuration is valid; a page with a `train` function of its own takes over the loop."""
    from metaapo.models import use_threads_of_environment
    from metaapo.run import RunContext
    from metaapo.trainer import IteratedTrainer

    use_threads_of_environment()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = RunContext(experiment, run)
    params = experiment.methods[run.method]
    page = importlib.import_module(module_of(run.method, params))
    if hasattr(page, "train"):
        page.train(params, context)
    else:
        IteratedTrainer(context, page.build(params, context)).train()


if __name__ == "__main__":
    main()
