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
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from metaapo.benchmarks import declared, known_benchmarks
from metaapo.config import NAME, ConfigError, ExperimentConfig, MethodConfig, SamplingConfig, TrainConfig
from metaapo.data import DataError, read_json, read_yaml, refuse_expansion, write_text
from metaapo.method import declaration_of, known_methods, method_module, module_of

SFT = "sft"  # the world's policy that methods start from; no method may have this name
REACHED_LOOK = "look.json"  # below the results: {"look": number of the look that has been reached}


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
    """A configuration with the runs, method settings and paths derived from it.

    With registered looks (`design.looks`), `seeds` and `world.seeds` are those of the look that has been reached;
    `registered` has all.
    """

    _registered: Experiment | None = PrivateAttr(None)

    @property
    def registered(self) -> Experiment:
        """The experiment up to its last look."""
        return self._registered or self

    def at_look(self, look: int) -> Experiment:
        """The experiment as far as a look, counted from 1; the experiment itself if no looks are registered."""
        full, looks = self.registered, self.design.looks
        if not looks:
            return self
        inside = set(full.replicates[: looks[look - 1]])
        methods = {
            name: method.model_copy(update={"seeds": [s for s in method.seeds if full.replicate_of(s) in inside]})
            if method.seeds
            else method
            for name, method in full.methods.items()
        }
        changes = {
            "seeds": [seed for seed in full.seeds if full.replicate_of(seed) in inside],
            "methods": methods,
            "design": self.design.model_copy(update={"look": look}),
        }
        if len(full.world.seeds) > 1:
            changes["world"] = self.world.model_copy(update={"seeds": [w for w in full.world.seeds if w in inside]})
        experiment = self.model_copy(update=changes)
        experiment._registered = full
        return experiment

    @property
    def replicates(self) -> list[int]:
        """What looks count, in the registered order: worlds if there are several, else seeds."""
        return list(self.world.seeds if len(self.registered.world.seeds) > 1 else self.seeds)

    def replicate_of(self, seed: int) -> int:
        """The replicate that a training seed belongs to: its world if there are several, else the seed itself."""
        return self.world_of(seed) if len(self.registered.world.seeds) > 1 else seed

    def look_of(self, run: Run) -> int:
        """The first look, counted from 0, at which a run is needed; 0 without registered looks."""
        worlds = len(self.registered.world.seeds) > 1
        replicate = run.seed if run.method == SFT and worlds else self.replicate_of(run.seed)
        order = self.registered.replicates
        place = order.index(replicate) if replicate in order else 0
        return sum(place >= look for look in self.design.looks)

    @property
    def results(self) -> Path:
        """Folder for all results of this experiment."""
        return Path(self.results_dir) / self.experiment

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks to evaluate on."""
        return list(self.evaluation.benchmarks)

    @property
    def primary_benchmark(self) -> str | None:
        """The first benchmark that declares itself the primary endpoint; None if there is none."""
        return next((name for name in self.benchmarks if declared(name, "primary", False)), None)

    def benchmarks_of(self, method: str) -> list[str]:
        """Benchmarks that a method's runs answer."""
        return self.methods[method].benchmarks or self.benchmarks

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

    def compared_runs(self) -> list[Run]:
        """The training runs that the report shows: all but those that are only compared with themselves (A/A)."""
        return [run for run in self.runs() if run.method != self.assay.aa]

    def world_of(self, seed: int) -> int:
        """The world seed that a training seed belongs to."""
        worlds = self.registered.world.seeds
        return worlds[seed % len(worlds)]

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
        Such a method need not be trained with every seed either: its first run in the seed's world is then meant.
        """
        entry, budget, seed = self.methods.get(method), run.budget, run.seed
        if entry is not None and declaration_of(entry.module or method).sampled == 0:
            budget, seeds = entry.budget[0], entry.seeds or self.seeds
            in_world = [other for other in seeds if self.world_of(other) == self.world_of(seed)]
            seed = seed if seed in seeds or not in_world else in_world[0]
        return run.model_copy(update={"method": method, "budget": budget, "seed": seed})

    def method_config(self, name: str) -> dict[str, Any]:
        """Everything in the configuration that all runs of a method depend on, as plain JSON data."""
        method = self.methods[name]
        return {
            "method": name,
            "module": module_of(name, method),
            "iterations": self.iterations,
            "params": method.model_dump(
                mode="json", exclude={"module", "budget", "seeds", "benchmarks", "role", "train", "sampling"}
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
        del parts["world"]["seeds"], parts["world"]["shipped"]  # adding a world does not affect the others
        return parts

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain data that `resolve` reads back to the same experiment."""
        full, plain = self.registered, self.model_dump(mode="json", exclude={"methods"})
        plain["seeds"], plain["world"]["seeds"] = list(full.seeds), list(full.world.seeds)
        return plain | {"methods": {name: m.model_dump(mode="json") for name, m in full.methods.items()}}


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
        if experiment.world.name != "tiny" and not declared(name, "official_size"):
            raise ConfigError(
                f"evaluation.benchmarks: {name} has no official questions and exists in the tiny world only; remove it "
                f"or set world.name: tiny (now {experiment.world.name})"
            )
    for method, entry in experiment.methods.items():
        for name in entry.benchmarks or []:
            if name not in experiment.benchmarks:
                raise ConfigError(
                    f"methods.{method}.benchmarks: {name!r} is not among the experiment's"
                    f"{_did_you_mean(name, experiment.benchmarks)}"
                )


def _check_assay(experiment: Experiment) -> None:
    """Check that what the assay needs is there: its methods, a gold reward and a primary endpoint."""
    assay = experiment.assay
    for key, name in (("planted.of", assay.planted.of), ("aa", assay.aa)):
        if not name:
            continue
        if name not in experiment.methods:
            raise ConfigError(f"assay.{key}: unknown method {name!r}{_did_you_mean(name, list(experiment.methods))}")
        if experiment.primary_benchmark not in experiment.benchmarks_of(name):
            raise ConfigError(f"assay.{key}: {name} must answer a primary benchmark; add pooled to its benchmarks")
    if assay.planted.of and experiment.world.name != "tiny":
        raise ConfigError("assay.planted.of: needs the gold reward, which only the tiny world has; remove the key")
    if assay.aa:
        worlds = [experiment.world_of(seed) for seed in experiment.methods[assay.aa].seeds or experiment.seeds]
        alone = [world for world in dict.fromkeys(worlds) if worlds.count(world) < 2]
        if alone:
            raise ConfigError(
                f"methods.{assay.aa}.seeds: an A/A comparison needs two or more seeds of every world; world {alone[0]} "
                "has one"
            )


def _check_looks(experiment: Experiment) -> None:
    """Check that there are enough worlds or seeds for the last look, and something of every method at the first."""
    looks = experiment.design.looks
    if not looks:
        return
    key = "world.seeds" if len(experiment.world.seeds) > 1 else "seeds"
    found = {experiment.replicate_of(seed) for seed in experiment.seeds}
    if len(found) < looks[-1]:
        raise ConfigError(
            f"design.looks: the last look needs {looks[-1]} entries of `{key}` with a training seed, found {len(found)}"
            "; list all that may be trained, in the order in which they are added"
        )
    first = experiment.at_look(1)
    for name, method in first.methods.items():
        if method.seeds == []:
            raise ConfigError(f"methods.{name}.seeds: none belongs to the first look; add one, or remove the key")


def _check_processes(experiment: Experiment) -> None:
    """Refuse batches that cannot be shared out equally among the training processes."""
    processes = experiment.hardware.processes
    for name, method in experiment.methods.items():
        size = experiment.train_of(name).batch_size
        if declaration_of(method.module or name).trains and size % processes:
            raise ConfigError(
                f"train.batch_size: {size} ({name}) is not a multiple of the {processes} training processes; change "
                "it, or hardware.processes"
            )


def _at_reached_look(experiment: Experiment) -> Experiment:
    """The experiment as far as the look that `snakemake decide` has reached, which it keeps beside the results."""
    path = experiment.results / REACHED_LOOK
    reached = read_json(path)["look"] if experiment.design.looks and path.is_file() else 1
    return experiment.at_look(min(max(experiment.design.look, reached), max(1, len(experiment.design.looks))))


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
    for name, method in experiment.methods.items():
        if declaration_of(method.module or name).reads_gold:
            raise ConfigError(
                f"methods.{name}: reads the gold reward, which only the tiny world has; remove the method"
            )
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
    _check_assay(experiment)
    _check_needs(experiment)
    _check_world(experiment)
    _check_looks(experiment)
    _check_processes(experiment)
    return _at_reached_look(experiment)


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
