"""How often the reward model ranks the samples of trained policies as the gold reward does.

    python -m eval.agreement_on_policy --config results/default/config.yaml --method dpo

A reward model is trained on answers of other writers, and policies move away from them: what counts is whether it is
still right where a policy ends. Each run of the method, at its largest budget, samples its last checkpoint on prompts
of its last iteration; both rewards grade the samples. Writes agreement/{method}.json for the health check of the report
(`reports.health`); nothing here enters a score.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from eval.grade import gold_module
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import DataError, write_json
from metaapo.experiment import Experiment, Run, load
from metaapo.method import known_declarations
from metaapo.worlds.on_policy import PROMPTS, SAMPLES, rewards_at_the_end

Record = dict[str, Any]


def checked_methods(experiment: Experiment) -> list[str]:
    """The plain methods whose ends are checked, if the world has a gold reward to check with."""
    if gold_module(experiment.world.name) is None:
        return []
    declared = known_declarations()
    return [name for name in experiment.methods if name in declared and declared[name].shows_signal]


def agreement_files(experiment: Experiment) -> list[str]:
    """The files this module writes, as a Snakemake input."""
    return [str(experiment.results / "agreement" / f"{name}.json") for name in checked_methods(experiment)]


def runs_of(experiment: Experiment, method: str) -> list[Run]:
    """The runs of a method at its largest budget."""
    largest = max(experiment.methods[method].budget)
    return [run for run in experiment.runs() if run.method == method and run.budget == largest]


def check_method(experiment: Experiment, method: str) -> Record:
    """Measure the agreement at the end of every run of a method.

    Returns:
        {method, prompts, samples, runs: [{run, world, agreement (share of pairs, 0 to 1), gold and proxy (means)}]}.

    Raises:
        DataError: a checkpoint or the world's pairs are missing, or all samples have the same gold reward.
    """
    from metaapo.models.load import use_threads_of_environment
    from metaapo.worlds.tiny.health import agreement

    use_threads_of_environment()
    rows = []
    for run in runs_of(experiment, method):
        golds, proxies = rewards_at_the_end(experiment, run, PROMPTS, SAMPLES)
        found = {"agreement": agreement(golds, proxies), "gold": golds.mean(), "proxy": proxies.mean()}
        rounded = {name: round(float(value), 4) for name, value in found.items()}
        rows.append({"run": run.id, "world": experiment.world_of(run.seed), **rounded})
    return {"method": method, "prompts": PROMPTS, "samples": SAMPLES, "runs": rows}


def main() -> None:
    """Command line: measure the agreement at the end of one method's runs."""
    parser = experiment_arguments(__doc__.splitlines()[0])
    parser.add_argument("--method", required=True, help="an entry of the configuration")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        experiment = load(arguments.config)
        if arguments.method not in experiment.methods:
            known = ", ".join(experiment.methods)
            raise DataError(f"--method {arguments.method}: not in this experiment; its methods: {known}")
        found = check_method(experiment, arguments.method)
        write_json(experiment.results / "agreement" / f"{arguments.method}.json", found)
        print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
