"""Train runs: `python -m metaapo.train --config results/default/config.yaml --run dpo/budget1.0/seed0`.

Several runs are trained one after the other in one process. Each keeps its finished iterations and writes its run.json
when it is finished, so what stops one leaves those before it as they are.
"""

from __future__ import annotations

import gc
import importlib
import os

from metaapo.command import errors_in_one_sentence, experiment_arguments, load_and_pin
from metaapo.config import ConfigError
from metaapo.experiment import Experiment, Run
from metaapo.method import module_of


def main() -> None:
    """Command line: read the configuration, build the method and run its iterations, for each run."""
    parser = experiment_arguments("Train runs, one after the other.")
    parser.add_argument("--run", nargs="+", required=True, help="METHOD/budgetB/seedS")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        experiment = load_and_pin(arguments.config)
        runs = [Run.parse(run) for run in arguments.run]
        for run in runs:
            if run.id not in experiment.run_ids():
                raise ConfigError(f"run {run.id}: not in this experiment; known: {', '.join(experiment.run_ids())}")
        for run in runs:
            train(experiment, run)


def train(experiment: Experiment, run: Run) -> None:
    """Train a run; a method's module can replace the loop with its own `train` function. Imports torch lazily."""
    from metaapo.loop import trainer
    from metaapo.loop.run import RunContext
    from metaapo.models.load import use_threads_of_environment

    use_threads_of_environment()
    if not gc.get_freeze_count():
        gc.freeze()  # what imports made stays; walking it took each collection a third of a second
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = RunContext(experiment, run)
    params = experiment.methods[run.method]
    module = importlib.import_module(module_of(run.method, params))
    if hasattr(module, "train"):
        module.train(params, context)
    else:
        trainer.train(context, module.build(params, context))


if __name__ == "__main__":
    main()
