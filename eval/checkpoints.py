"""The models that an experiment evaluates, and the paths of their answers and judgments.

Every training run is evaluated after each of its iterations, and so is the SFT policy of every world, as method "sft",
budget 0.0, seed = the world's, iteration 0; it is the baseline of the small world's pairwise benchmarks.
"""

from __future__ import annotations

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
    known = evaluated_runs(experiment)
    run = Run.parse(run_id)
    if run.id not in known:
        raise ConfigError(f"run {run.id}: not in this experiment; its runs: {', '.join(known)}")
    if run.method == SFT:
        return [sft_model(run.seed)]
    world = experiment.world_of(run.seed)
    return [EvaluatedModel(run, world, iteration) for iteration in range(1, experiment.iterations + 1)]


def evaluated_runs(experiment: Experiment) -> list[str]:
    """Ids of everything that is evaluated: the SFT policies that the runs start from, then the runs."""
    worlds = sorted({experiment.world_of(run.seed) for run in experiment.runs()})
    return [sft_model(world).run.id for world in worlds] + experiment.run_ids()


def evaluated_models(experiment: Experiment) -> list[EvaluatedModel]:
    """All checkpoints, SFT policies first."""
    return [model for run in evaluated_runs(experiment) for model in models_of_run(experiment, run)]


def judged_runs(experiment: Experiment, benchmark: str) -> list[str]:
    """Ids of the runs that are judged: all, except the SFT policies if they are the baseline."""
    sft_is_baseline = baseline_of(experiment, benchmark) == SFT_BASELINE
    return experiment.run_ids() if sft_is_baseline else evaluated_runs(experiment)


def checkpoints_ready(experiment: Experiment, method: str, budget: str, seed: str) -> list[str]:
    """The files needed before a run can answer benchmarks, as a Snakemake input."""
    if method == SFT:
        return [str(experiment.world_path(int(seed)) / "sft" / "model.safetensors")]
    return [str(experiment.run_path(Run(method=method, budget=float(budget), seed=int(seed))) / "run.json")]


def answers_ready(experiment: Experiment, benchmark: str, method: str, budget: str, seed: str) -> list[str]:
    """The manifests of the run's and its baseline's answers, needed before it can be judged, as a Snakemake input."""
    runs = [Run(method=method, budget=float(budget), seed=int(seed))]
    if baseline_of(experiment, benchmark) == SFT_BASELINE and method != SFT:
        runs.append(sft_model(experiment.world_of(int(seed))).run)
    return [str(experiment.results / "answers" / f"{run.id}.json") for run in runs]


def answer_settings(experiment: Experiment) -> dict[str, object]:
    """The settings that answers depend on; answers are regenerated only if one of these changes."""
    settings = experiment.evaluation.model_dump(mode="json")
    declared = [key for name in experiment.benchmarks for key in declaration(name).answer_settings]
    chosen = {key: settings[key] for key in ("benchmarks", "questions", "temperature", "max_new_tokens", *declared)}
    return chosen | {"world_questions": {name: declaration(name).world_questions for name in experiment.benchmarks}}


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
