"""The models that an experiment evaluates, and the paths of their answers and judgments.

Every training run is evaluated after each of its iterations, and so is the SFT policy of every world, as method "sft",
budget 0.0, seed = the world's, iteration 0; it is the baseline of the small world's pairwise benchmarks. Policies with
a planted effect (eval.planted) are judged and scored like runs, but nothing is trained for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval.benchmark import answering_code
from eval.benchmark import benchmark as declaration
from eval.questions import SFT_BASELINE, baseline_of
from metaapo.config import ConfigError
from metaapo.experiment import Experiment, Run

SFT = "sft"


@dataclass(frozen=True)
class EvaluatedModel:
    """One checkpoint: a run after an iteration, counted from 1, or the SFT policy of a world (iteration 0)."""

    run: Run
    world: int
    iteration: int

    @property
    def id(self) -> str:
        """Its name in upstream's files (generator, model, model_id)."""
        return f"{self.run.method}-budget{self.run.budget}-seed{self.run.seed}-iter{self.iteration}"

    def checkpoint(self, experiment: Experiment) -> Path:
        """The folder of its weights and tokenizer."""
        if self.run.method == SFT:
            return experiment.world_path(self.world) / "sft"
        return experiment.run_path(self.run) / f"iter{self.iteration}" / "model"

    def answers(self, experiment: Experiment, benchmark: str) -> Path:
        """Its answers, in the benchmark's own format."""
        return experiment.results / "answers" / benchmark / self.run.id / self._file(benchmark)

    def judgments(self, experiment: Experiment, benchmark: str, judge: str) -> Path:
        """A judge's judgments of its answers, in the benchmark's own format."""
        return experiment.results / "judgments" / benchmark / judge / self.run.id / self._file(benchmark)

    def _file(self, benchmark: str) -> str:
        return f"iter{self.iteration}.{declaration(benchmark).extension}"


def sft_model(world: int) -> EvaluatedModel:
    """The SFT policy of a world."""
    return EvaluatedModel(Run(method=SFT, budget=0.0, seed=world), world, 0)


def models_of_run(experiment: Experiment, run_id: str) -> list[EvaluatedModel]:
    """The checkpoints of one run, in training order.

    Args:
        experiment: the experiment.
        run_id: METHOD/budgetB/seedS; the SFT policy of world w is sft/budget0.0/seedw.

    Raises:
        ConfigError: the experiment has no such run.
    """
    planted = [run.id for run in planted_runs(experiment)]
    known = evaluated_runs(experiment) + planted
    run = Run.parse(run_id)
    if run.id not in known:
        raise ConfigError(f"run {run.id}: not in this experiment; its runs: {', '.join(known)}")
    if run.method == SFT:
        return [sft_model(run.seed)]
    world = experiment.world_of(run.seed)
    first = experiment.iterations if run.id in planted else 1
    return [EvaluatedModel(run, world, iteration) for iteration in range(first, experiment.iterations + 1)]


def evaluated_runs(experiment: Experiment, benchmark: str | None = None) -> list[str]:
    """Ids of the SFT policies that the runs start from, then of the runs; if given, only those that answer a
    benchmark."""
    worlds = sorted({experiment.world_of(run.seed) for run in experiment.runs()})
    return [sft_model(world).run.id for world in worlds] + _answering(experiment, benchmark)


def _answering(experiment: Experiment, benchmark: str | None) -> list[str]:
    asked = [run for run in experiment.runs() if benchmark in (None, *experiment.benchmarks_of(run.method))]
    return [run.id for run in asked]


def benchmarks_of(experiment: Experiment, run: Run) -> list[str]:
    """Benchmarks that a run answers; the SFT policies answer all."""
    return experiment.benchmarks if run.method == SFT else experiment.benchmarks_of(run.method)


def planted_runs(experiment: Experiment) -> list[Run]:
    """Policies with a planted effect, in place of runs: one per effect and run of the method that is planted in."""
    planted = experiment.assay.planted
    sources = [run for run in experiment.runs() if run.method == planted.of]
    largest = max((run.budget for run in sources), default=0.0)
    return [
        Run(method=planted_name(points), budget=run.budget, seed=run.seed)
        for points in planted.points
        for run in sources
        if run.budget == largest
    ]


def planted_name(points: int) -> str:
    """The name under which policies with a planted effect are evaluated."""
    return f"planted_{points}"


def evaluated_models(experiment: Experiment) -> list[EvaluatedModel]:
    """All checkpoints, SFT policies first."""
    return [model for run in evaluated_runs(experiment) for model in models_of_run(experiment, run)]


def judged_runs(experiment: Experiment, benchmark: str) -> list[str]:
    """Ids of the runs that are judged: those that answer, except the SFT policies if they are the baseline.

    Planted effects are judged on the primary benchmark.
    """
    sft_is_baseline = baseline_of(experiment, benchmark) == SFT_BASELINE
    runs = _answering(experiment, benchmark) if sft_is_baseline else evaluated_runs(experiment, benchmark)
    planted = planted_runs(experiment) if benchmark == experiment.primary_benchmark else []
    return runs + [run.id for run in planted]


def checkpoints_ready(experiment: Experiment, runs: Iterable[Run]) -> list[str]:
    """The files needed before runs can answer benchmarks, as a Snakemake input."""
    return [
        str(
            experiment.world_path(run.seed) / "sft" / "model.safetensors"
            if run.method == SFT
            else experiment.run_path(run) / "run.json"
        )
        for run in runs
    ]


def answers_ready(experiment: Experiment, benchmark: str, runs: Iterable[Run]) -> list[str]:
    """The manifests of the runs' and their baselines' answers, needed for judging them, as a Snakemake input."""
    needed = list(runs)
    if baseline_of(experiment, benchmark) == SFT_BASELINE:
        needed += [sft_model(experiment.world_of(run.seed)).run for run in needed if run.method != SFT]
    return [str(experiment.results / "answers" / f"{run.id}.json") for run in dict.fromkeys(needed)]


def answer_settings(experiment: Experiment) -> dict[str, object]:
    """The settings that answers depend on; answers are regenerated only if one of these changes."""
    settings = experiment.evaluation.model_dump(mode="json")
    declared = [key for name in experiment.benchmarks for key in declaration(name).answer_settings]
    fewer = {name: entry.benchmarks for name, entry in experiment.methods.items() if entry.benchmarks}
    chosen = {key: settings[key] for key in ("benchmarks", "questions", "temperature", "max_new_tokens", *declared)}
    chosen["world_questions"] = {name: declaration(name).world_questions for name in experiment.benchmarks}
    if experiment.evaluation.answer_tokens:
        chosen["answer_tokens"] = dict(experiment.evaluation.answer_tokens)
    return chosen | ({"methods": fewer} if fewer else {})


def judge_settings_of(experiment: Experiment, benchmark: str) -> dict[str, object]:
    """The settings that a benchmark's judgments depend on, in addition to the judge's entry."""
    settings, declared = experiment.evaluation.model_dump(mode="json"), declaration(benchmark)
    chosen = {key: settings[key] for key in declared.judge_settings}
    return chosen | {"baseline": baseline_of(experiment, benchmark), "pairwise": declared.pairwise}


def score_settings_of(experiment: Experiment, benchmark: str) -> dict[str, object]:
    """The settings that a benchmark's scores depend on."""
    settings = experiment.evaluation.model_dump(mode="json")
    return {key: settings[key] for key in declaration(benchmark).score_settings}


def answer_code(experiment: Experiment) -> dict[str, str]:
    """Hash of the code that the answers to each benchmark depend on."""
    return {name: answering_code(name) for name in experiment.benchmarks}
