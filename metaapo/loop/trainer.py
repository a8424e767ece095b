"""The iterated loop that all preference methods share: score -> select -> sample -> annotate -> train.

A `Method` answers the loop's questions (metaapo/method.py); nothing here knows which method it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaapo.loop.epoch import train_epoch
from metaapo.loop.offline import score_offline
from metaapo.loop.online import annotate_selected, reuse_offline_pairs
from metaapo.loop.probe import probe, start_probe
from metaapo.loop.records import summary, write_records
from metaapo.loop.run import RunContext, run_iterations
from metaapo.loop.saving import save_policy
from metaapo.loop.stages import Clock
from metaapo.loop.workbench import Workbench
from metaapo.method import Method, SelectionRequest


def train(context: RunContext, method: Method) -> None:
    """Run every unfinished iteration of a run with the method's decisions."""
    bench = Workbench.of(context)

    def iterate(iteration: int, folder: Path) -> dict[str, Any]:
        return train_iteration(bench, method.at(iteration), iteration, folder)

    run_iterations(context, iterate, bench.processes)


def train_iteration(bench: Workbench, method: Method, iteration: int, folder: Path) -> dict[str, Any]:
    """Run one iteration (score, select, sample, annotate, train); write `folder` and return the summary."""
    clock, context = Clock(), bench.context
    bench.policies.start(iteration)
    _start_learner(method, context, iteration)
    with clock("score"):
        prompts, pairs = score_offline(bench, method, iteration)
    request = SelectionRequest(pairs, iteration, context.run.budget, context.rng(iteration, "select"))
    first_probe = annotate_selected(bench, method, iteration, prompts, method.select(request), clock)
    if method.unsampled == "full":
        reuse_offline_pairs(prompts)
    with clock("train"):
        probes = start_probe(bench, iteration, prompts, first_probe)
        log, model = train_epoch(bench, method, iteration, prompts, pairs)
        if bench.sampler.works_while_training:
            probes += probe(bench, iteration, len(log), prompts)
    save_policy(bench.policies, folder, model)
    bench.policies.finish_training(folder / "model")
    del model
    if not bench.sampler.works_while_training:
        with clock("sample"):
            probes += probe(bench, iteration, len(log), prompts)
    write_records(bench, folder, prompts, log, probes)
    if method.learner is not None and bench.processes.is_main:
        method.learner.save(folder)
    return summary(bench, prompts, probes, clock)


def _start_learner(method: Method, context: RunContext, iteration: int) -> None:
    """Load the meta-learner from the previous iteration and start the new one."""
    if method.learner is None:
        return
    if iteration > 1:
        method.learner.load(context.iteration_path(iteration - 1))
    method.learner.start_iteration()
