"""Does the method under test sample the prompts that gain most from it?

    python -m eval.aim --config results/default/config.yaml

For every run and iteration, the policy that the iteration started from answers a fixed random subset of its prompts.
The reward model ranks the answers as in annotation, and the gold reward tells what the online pair adds to the offline
pair: the gain by which an oracle selects. Each row also has the logged probability with which the prompt was sampled.

Writes aim.csv with the columns COLUMNS. No policy is trained, and nothing here enters training.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from metaapo.command import errors_in_one_sentence, experiment_arguments, load_and_pin
from metaapo.data import read_jsonl, write_text
from metaapo.experiment import Experiment, Run
from metaapo.method import declaration_of

COLUMNS = ("method", "budget", "seed", "iteration", "id", "p_sample", "gain")
FILE = "aim.csv"


def aimed_runs(experiment: Experiment) -> list[Run]:
    """The runs of the method under test, at all budgets; empty if the aim is not measured or cannot be.

    If several entries use its module, the one named like the module is meant, else the first.
    """
    if experiment.world.name != "tiny" or not experiment.assay.aim_prompts:
        return []
    modules = {name: entry.module or name for name, entry in experiment.methods.items()}
    tested = [name for name, module in modules.items() if declaration_of(module).role == "method"]
    aimed = min(tested, key=lambda name: name != modules[name], default=None)
    return [run for run in experiment.runs() if run.method == aimed]


def aim_of_run(experiment: Experiment, run: Run) -> Iterator[dict[str, Any]]:
    """A row of COLUMNS for each prompt of the subset in every iteration of a run.

    `p_sample` is the logged probability of sampling; `gain` is in units of gold reward, -inf if the answers are equally
    good to the reward model, so that there would be no online pair.
    """
    from metaapo.loop.run import RunContext
    from metaapo.loop.workbench import Workbench

    context = RunContext(experiment, run)
    bench = Workbench.of(context)
    for iteration in range(1, experiment.iterations + 1):
        logged = {row["id"]: row for row in read_jsonl(context.iteration_path(iteration) / "annotations.jsonl")}
        for id, gain in _gains(bench, iteration).items():
            where = {"method": run.method, "budget": run.budget, "seed": run.seed, "iteration": iteration, "id": id}
            yield where | {"p_sample": logged[id]["sample_probability"], "gain": gain}


def _gains(bench: Any, iteration: int) -> dict[str, float]:
    """The gain of each prompt of the iteration's subset, from pairs made by the loop's own sampling and annotation."""
    import numpy as np

    from metaapo.loop.online import annotate_selected
    from metaapo.loop.stages import Clock
    from metaapo.method import AnnotatedPrompt, Method
    from metaapo.selection import Selection
    from metaapo.worlds.gain import gold_gain

    bench.policies.start(iteration)
    prompts = bench.read_prompts(iteration)
    drawn = bench.context.rng(iteration, "aim").permutation(len(prompts))[: bench.context.experiment.assay.aim_prompts]
    subset = [prompts[i] for i in sorted(drawn)]
    every = Selection(np.ones(len(subset), bool), np.ones(len(subset)))
    method = Method(select=lambda request: every, weigh=lambda pairs: 0.5)
    annotate_selected(bench, method, iteration, subset, every, Clock())
    return {p.id: gold_gain(AnnotatedPrompt(p.messages, p.texts, p.online_texts)) for p in subset}


def aim(experiment: Experiment) -> None:
    """Write aim.csv for all runs of the method under test."""
    from metaapo.models.load import use_threads_of_environment

    use_threads_of_environment()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in aimed_runs(experiment):
        writer.writerows(aim_of_run(experiment, run))
    write_text(experiment.results / FILE, text.getvalue())


def main() -> None:
    """Command line: measure the aim of selection of an experiment."""
    parser = experiment_arguments("Measure the aim of selection.")
    with errors_in_one_sentence():
        aim(load_and_pin(parser.parse_args().config))


if __name__ == "__main__":
    main()
