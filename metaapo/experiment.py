"""An experiment: its runs, the paths of their files, and how it is read from a configuration file.

A configuration file is YAML; `load` returns an `Experiment` or reports in one sentence what is wrong.
Nothing here imports torch, because Snakemake reads the configuration every time it starts.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from metaapo.benchmarks import known_benchmarks
from metaapo.config import NAME, ConfigError, ExperimentConfig, MethodConfig, SamplingConfig, TrainConfig
from metaapo.data import DataError, read_yaml, refuse_expansion, write_text
from metaapo.method import declaration_of, known_methods, method_module, module_of

SFT = "sft"  # the world's policy that methods start from; no method may have this name


class Run(BaseModel):
    """One training run: a method at a budget with a seed."""

    model_config = ConfigDict(frozen=True)
    method: str
    budget: float
    seed: int

    @property
    def id(self) -> str:
        """The run's folder below `runs/`, such as "dpo/budget1.0/seed0"."""
        return f"{self.method}/budget{self.budget}/seed{self.seed}"

    @classmethod
    def parse(cls, run_id: str) -> Self:
        """Read a run's folder name back.

        Raises:
            ConfigError: not of the form METHOD/budgetB/seedS.
        """
        parts = run_id.split("/")
        try:
            method, budget, seed = parts
            run = cls(
                method=method,
                budget=float(budget.removeprefix("budget")),
                seed=int(seed.removeprefix("seed")),
            )
            if not re.fullmatch(NAME, method) or not 0 <= run.budget <= 1 or run.seed < 0:
                raise ValueError("a method's name, a budget from 0 to 1, a seed of 0 or more")
            return run
        except ValueError as error:
            raise ConfigError(f"run {run_id!r}: expected METHOD/budgetB/seedS, such as dpo/budget1.0/seed0") from error


class Experiment(ExperimentConfig):
    """A configuration with the runs, method settings and paths derived from it."""

    @property
    def results(self) -> Path:
        """Folder for all results of this experiment."""
        return Path(self.results_dir) / self.experiment

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks to evaluate on."""
        return list(self.evaluation.benchmarks)

    @property
    def judges(self) -> list[str]:
        """Judges to use, each on all benchmarks."""
        return list(self.evaluation.judges)

    def runs(self) -> list[Run]:
        """All training runs, in the order of the configuration."""
        return [
            Run(method=name, budget=budget, seed=seed)
            for name, method in self.methods.items()
            for budget in method.budget
            for seed in method.seeds or self.seeds
        ]

    def run_ids(self, method: str | None = None) -> list[str]:
        """Folders of all training runs, or those of one method, below `runs/`."""
        return [run.id for run in self.runs() if method in (None, run.method)]

    def world_of(self, seed: int) -> int:
        """The world seed that a training seed belongs to."""
        return self.world.seeds[seed % len(self.world.seeds)]

    def world_path(self, world: int) -> Path:
        """Folder of one world: data, SFT policy, reward model."""
        return self.results / f"world{world}"

    def run_path(self, run: Run) -> Path:
        """Folder of one training run."""
        return self.results / "runs" / run.id

    def train_of(self, method: str) -> TrainConfig:
        """The section `train` with a method's overrides; the method that `train.start` names starts from SFT."""
        entry = self.methods[method]
        settings = self.train.model_dump() | entry.overrides() | entry.train
        if settings["start"] == method:
            settings["start"] = SFT
        return TrainConfig.model_validate(settings)

    def sampling_of(self, method: str) -> SamplingConfig:
        """The section `sampling` with a method's overrides."""
        return SamplingConfig.model_validate(self.sampling.model_dump() | self.methods[method].sampling)

    def needs(self, run: Run) -> list[Run]:
        """Runs that must be finished before this one starts."""
        start = self.train_of(run.method).start
        names = [*self.methods[run.method].needs(), *([] if start == SFT else [start])]
        return [self.beside(run, name) for name in names]

    def beside(self, run: Run, method: str) -> Run:
        """Another method's run with the same seed and budget; if it samples nothing, its only run with the seed.

        A budget means nothing to a method that declares `sampled` 0, so a run at any budget can start from its policy.
        """
        entry, budget = self.methods.get(method), run.budget
        if entry is not None and declaration_of(entry.module or method).sampled == 0:
            budget = entry.budget[0]
        return run.model_copy(update={"method": method, "budget": budget})

    def method_config(self, name: str) -> dict[str, Any]:
        """Everything in the configuration that all runs of a method depend on, as plain JSON data."""
        method = self.methods[name]
        return {
            "method": name,
            "module": module_of(name, method),
            "iterations": self.iterations,
            "params": method.model_dump(
                mode="json", exclude={"module", "budget", "seeds", "role", "train", "sampling"}
            ),
            "train": self.train_of(name).model_dump(mode="json"),
            "sampling": self.sampling_of(name).model_dump(mode="json"),
        }

    def run_config(self, run: Run) -> dict[str, Any]:
        """Everything in the configuration that one training run's result depends on, as plain JSON data."""
        settings = {"budget": run.budget, "seed": run.seed, "world": self.world_of(run.seed)}
        return self.method_config(run.method) | settings

    def world_config(self) -> dict[str, Any]:
        """Everything in the configuration that the data, SFT policy and reward model of one world depend on."""
        parts = self.model_dump(mode="json", include={"iterations", "world", "model", "sft", "reward_model"})
        del parts["world"]["seeds"]  # adding a world does not affect the others
        return parts

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain data that `resolve` reads back to the same experiment."""
        plain = self.model_dump(mode="json", exclude={"methods"})
        return plain | {"methods": {name: m.model_dump(mode="json") for name, m in self.methods.items()}}


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} known: {', '.join(known)}"


def _explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> ConfigError:
    """Explain the first validation error in one sentence that names the key and how to fix it."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join([prefix, *location] if prefix else location) or "configuration"
    if first["type"] == "extra_forbidden":
        section: Any = model
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return ConfigError(f"{key}: unknown key{_did_you_mean(location[-1], sorted(section.model_fields))}")
    if first["type"] == "missing":
        return ConfigError(f"{key}: this key is required")
    found = first.get("input")
    return ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}; found {found!r}")


def _resolve_method(name: str, entry: Any, base: Experiment) -> MethodConfig:
    key = f"methods.{name}"
    entry = entry or {}
    if not isinstance(entry, dict):
        raise ConfigError(f"{key}: expected a mapping of settings ({{}} for none); found {entry!r}")
    if name == SFT:
        raise ConfigError(f"{key}: this name means the world's SFT policy; rename the method and set `module`")
    name_of_module = entry.get("module") or name
    if name_of_module not in known_methods():
        raise ConfigError(f"{key}: unknown method {name_of_module!r}{_did_you_mean(name_of_module, known_methods())}")
    module = method_module(name_of_module)
    params: type[MethodConfig] = getattr(module, "Params", MethodConfig)
    try:
        method = params.model_validate(entry)
    except ValidationError as error:
        raise _explain(error, params, key) from error
    for section, model in (("train", TrainConfig), ("sampling", SamplingConfig)):
        try:
            model.model_validate(getattr(base, section).model_dump() | getattr(method, section))
        except ValidationError as error:
            raise _explain(error, model, f"{key}.{section}") from error
    return method


def _check_benchmarks(experiment: Experiment) -> None:
    known = known_benchmarks()
    for name in experiment.benchmarks:
        if name not in known:
            raise ConfigError(f"evaluation.benchmarks: unknown benchmark {name!r}{_did_you_mean(name, known)}")


def _check_needs(experiment: Experiment) -> None:
    runs = set(experiment.run_ids())
    for run in experiment.runs():
        for needed in experiment.needs(run):
            if needed.method not in experiment.methods:
                raise ConfigError(f"methods.{run.method}: needs the method {needed.method!r}; add it under methods")
            if needed.id not in runs:
                raise ConfigError(
                    f"methods.{run.method}: needs the run {needed.id}; give both methods the same budgets and seeds"
                )
    for run in experiment.runs():
        _check_order(experiment, run, [])


def _check_order(experiment: Experiment, run: Run, waiting: list[str]) -> None:
    """Check that no run waits for itself through the runs it needs."""
    if run.method in waiting:
        circle = " -> ".join([*waiting[waiting.index(run.method) :], run.method])
        raise ConfigError(f"methods.{run.method}: waits for itself ({circle}); change train.start or match of one")
    for needed in experiment.needs(run):
        _check_order(experiment, needed, [*waiting, run.method])


def _check_world(experiment: Experiment) -> None:
    """Check that a world of real data names its dataset and models, and that the tiny world names none."""
    world, given = experiment.world, _given_sources(experiment)
    if world.name == "tiny":
        if given:
            raise ConfigError(f"{given[0]}: the tiny world makes its own; set world.name to ultrafeedback or remove it")
        return
    if "world.dataset.path" not in given:
        raise ConfigError("world.dataset.path: this key is required where world.name is ultrafeedback")
    if "sft.checkpoint.path" not in given:
        raise ConfigError("sft.checkpoint.path: this key is required where world.name is ultrafeedback")
    if not {"reward_model.checkpoint.path", "reward_model.dataset.path"} & set(given):
        raise ConfigError("reward_model.checkpoint.path: set it, or set reward_model.dataset.path to train a model")
    if "gold" in experiment.judges:
        raise ConfigError(
            "evaluation.judges: the gold judge only works in the tiny world; choose others from config/judges.yaml"
        )


def _given_sources(experiment: Experiment) -> list[str]:
    """Return the keys for released checkpoints and datasets that the configuration sets."""
    sources = {
        "world.dataset.path": experiment.world.dataset.path,
        "sft.checkpoint.path": experiment.sft.checkpoint.path,
        "reward_model.checkpoint.path": experiment.reward_model.checkpoint.path,
        "reward_model.dataset.path": experiment.reward_model.dataset.path,
    }
    return [key for key, path in sources.items() if path]


def resolve(document: Any) -> Experiment:
    """Validate a configuration document.

    Args:
        document: the parsed YAML, a mapping.

    Raises:
        ConfigError: the configuration is invalid; the message names the key, what was expected and how to fix it.
    """
    try:
        refuse_expansion(document, "configuration")
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(document, dict):
        raise ConfigError("configuration: expected a mapping of keys such as experiment, seeds, methods")
    try:
        experiment = Experiment.model_validate(document)
    except ValidationError as error:
        raise _explain(error, Experiment) from error
    methods = {name: _resolve_method(name, entry, experiment) for name, entry in experiment.methods.items()}
    experiment = experiment.model_copy(update={"methods": methods})
    _check_benchmarks(experiment)
    _check_needs(experiment)
    _check_world(experiment)
    return experiment


def load(path: str | Path) -> Experiment:
    """Read and validate a configuration file.

    Raises:
        ConfigError: the file is missing, not YAML, or not a valid experiment.
    """
    try:
        document = read_yaml(path, "a configuration file")
    except DataError as error:
        raise ConfigError(str(error)) from error
    try:
        return resolve(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_resolved(experiment: Experiment) -> str:
    """Write the resolved configuration to results/<experiment>/config.yaml, only if it differs from the existing file.

    Returns:
        the file's path.
    """
    path = experiment.results / "config.yaml"
    text = yaml.safe_dump(experiment.dump(), sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return str(path)
