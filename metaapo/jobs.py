"""Which runs share a job, and so a process: starting one takes seconds, which count where models are small.

A job is a Snakemake rule. The rule's files cannot be a function of its wildcards, so a job of several runs is a rule of
its own, without wildcards; where jobs have one run each, one rule with the wildcards method, budget and seed does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metaapo.experiment import Experiment, Run


@dataclass(frozen=True)
class Job:
    """Runs of one method at one budget that a process handles one after the other.

    Attributes:
        method: the method's name, or a wildcard.
        budget: as in the run's folder, or a wildcard.
        seeds: as in the runs' folders, or a single wildcard.
    """

    method: str
    budget: str
    seeds: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """The runs' folders below `runs/`, such as "dpo/budget1.0/seed0"."""
        return [f"{self.method}/budget{self.budget}/seed{seed}" for seed in self.seeds]

    @property
    def label(self) -> str:
        """Part of the names of the job's log and benchmark files, such as "budget1.0-seed0-1-2"."""
        return f"budget{self.budget}-seed{'-'.join(self.seeds)}"

    def runs(self, wildcards: Mapping[str, str]) -> list[Run]:
        """The runs, given the values of the wildcards."""
        return [Run.parse(run.format_map(dict(wildcards.items()))) for run in self.ids]


def jobs_of(experiment: Experiment, run_ids: Iterable[str], size: int, method: str = "{method}") -> list[Job]:
    """Divide runs into jobs of up to `size` seeds of one method at one budget.

    Args:
        experiment: the experiment.
        run_ids: METHOD/budgetB/seedS; for the SFT policy of world w, sft/budget0.0/seedw.
        size: `runs` of the job's section of `hardware`.
        method: a name if the runs are all of one method.
    """
    if size == 1:
        return [Job(method, "{budget}", ("{seed}",))]
    seeds: dict[tuple[str, str, int], list[str]] = {}
    for run in map(Run.parse, run_ids):  # a job never spans two looks, so that a later look leaves it as it is
        seeds.setdefault((run.method, str(run.budget), experiment.look_of(run)), []).append(str(run.seed))
    return [
        Job(method, budget, tuple(members[start : start + size]))
        for (method, budget, _), members in seeds.items()
        for start in range(0, len(members), size)
    ]
