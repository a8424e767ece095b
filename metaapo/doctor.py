"""Look for what would stop a training run, before anything is spent: packages, checkpoints, memory, disk, hardware.

`python -m eval.doctor --config FILE` and `metaapo doctor` add what concerns questions and judges. Nothing is computed,
fetched or written. A finding is one sentence that ends with the way out.

Checked of every checkpoint: it is here and complete, its weights share one type, its chat template ends a response with
exactly one EOS, its tokenizer is the model's, and a reward model has a trained head with one output. The hub is asked
about those that are not here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metaapo import PROJECT
from metaapo.assets import hub
from metaapo.config import CheckpointConfig, ConfigError
from metaapo.data import DataError, read_json
from metaapo.estimate import estimate, table
from metaapo.experiment import Experiment
from metaapo.provenance import git_commit

LARGE = 1e9  # parameters of a policy that nobody trains on a CPU
HUB = "the hub"
NAMED_ROWS = 0.9  # of an embedding: the share that a model's own tokenizer names at least; the rest is padding


@dataclass(frozen=True)
class Finding:
    """Something that would stop the experiment, or that a user should know first.

    Attributes:
        level: "error" if the experiment would fail, "warning" if it may, or if money or time may be lost.
        where: the key of the configuration, or the thing that it is about.
        sentence: what is wrong and the way out.
    """

    level: Literal["error", "warning"]
    where: str
    sentence: str


def error(where: str, sentence: str) -> Finding:
    """A finding that stops the experiment."""
    return Finding("error", where, sentence)


def warning(where: str, sentence: str) -> Finding:
    """A finding that does not."""
    return Finding("warning", where, sentence)


def examine(experiment: Experiment) -> Iterator[Finding]:
    """What is wrong with an experiment's training, in the order in which it would be met."""
    yield from packages(experiment)
    yield from checkpoints(experiment)
    yield from cost(experiment)
    yield from hardware(experiment)
    if git_commit() == "unknown":
        yield warning("commit", "the project is not a git clone, so no result will name its commit; work in a clone")


# --- packages ------------------------------------------------------------------------------------------------------


def packages(experiment: Experiment) -> Iterator[Finding]:
    """Packages that the experiment's jobs import."""
    wanted = dict.fromkeys(("torch", "transformers", "accelerate", "safetensors"), "train")
    wanted |= dict.fromkeys(("snakemake", "matplotlib", "papermill"), "workflow")
    methods = {name: experiment.train_of(name) for name in experiment.methods}
    if any(train.lora.rank for train in methods.values()):
        wanted["peft"] = "lora"
    if any(
        asset.path.endswith(".gguf") or asset.path.startswith(hub.PACKAGE) for asset in hub.of_experiment(experiment)
    ):
        wanted["gguf"] = "gguf"
    for package, extra in wanted.items():
        if importlib.util.find_spec(package) is None:
            yield error("packages", f"{package} is not installed; run pip install '.[{extra}]'")
    yield from _vllm(experiment)


def _vllm(experiment: Experiment) -> Iterator[Finding]:
    """The engine of the backend vllm, in this environment or in one of its own."""
    for name in experiment.methods:
        sampling = experiment.sampling_of(name)
        if sampling.backend != "vllm":
            continue
        python = sampling.vllm.python
        if python and shutil.which(python) is None:
            yield error("sampling.vllm.python", f"{python} is no program here; give an interpreter that has vLLM")
        elif not python and importlib.util.find_spec("vllm") is None:
            yield error(
                "sampling.backend",
                "vllm is not here, since it needs an older transformers; install it into an environment of its own "
                "(workflow/envs/vllm.yaml) and name its interpreter in sampling.vllm.python, or set "
                "backend: transformers",
            )
        return


# --- checkpoints ---------------------------------------------------------------------------------------------------


def checkpoints(experiment: Experiment) -> Iterator[Finding]:
    """Checkpoints and datasets that the configuration names."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            return  # `packages` says so
    given = {
        "sft.checkpoint.path": experiment.sft.checkpoint,
        "reward_model.checkpoint.path": experiment.reward_model.checkpoint,
    }
    for name, method in experiment.methods.items():
        if isinstance(checkpoint := getattr(method, "checkpoint", None), CheckpointConfig):
            given[f"methods.{name}.checkpoint.path"] = checkpoint
    reachable = True
    for asset in hub.of_experiment(experiment):
        try:
            source = asset.locate(experiment.assets_dir)
        except DataError as missing:
            if asset.is_local:
                yield error(asset.key, str(missing).removeprefix(f"{asset.key}: "))
            elif reachable:
                found = _on_the_hub(asset, experiment.network)
                reachable = found.where != HUB
                yield found
            continue
        if asset.kind == "model" and source.is_dir():
            rewards = asset.key.startswith("reward_model")
            yield from checkpoint_findings(asset.key, source, given[asset.key], experiment, rewards)


def _on_the_hub(asset: hub.Asset, fetches: bool) -> Finding:
    """What stops an asset that is not on this machine from being fetched; if nothing does, that it has to be."""
    try:
        hub.look_up(asset)
    except hub.UnreachableError as silent:
        return error(HUB, str(silent).removeprefix(f"{asset.key}: "))
    except DataError as unavailable:
        return error(asset.key, str(unavailable).removeprefix(f"{asset.key}: "))
    if fetches:
        return warning(asset.key, f"{asset.path} will be fetched; run `snakemake prefetch` to check it first")
    return error(asset.key, f"{asset.path} is on the hub and not on this machine; run `snakemake prefetch`")


def checkpoint_findings(
    key: str, source: Path, checkpoint: CheckpointConfig, experiment: Experiment, rewards: bool = False
) -> Iterator[Finding]:
    """What is wrong with a checkpoint folder.

    Args:
        key: its key in the configuration.
        source: the folder.
        checkpoint: how it is read.
        experiment: says how long the sequences are.
        rewards: whether it is the reward model.
    """
    from metaapo.models.load import check_checkpoint, head_options, saved_dtypes

    try:
        check_checkpoint(source)
        if len(types := saved_dtypes(source)) > 1:
            yield error(key, f"{source}: the weights mix {', '.join(sorted(types))}; save the model in one type")
        if rewards:
            head_options(source)
    except DataError as unusable:
        yield error(key, str(unusable))
        return
    config = read_json(source / "config.json")
    longest = config.get("max_position_embeddings")
    if longest and experiment.train.max_length > longest:
        yield error(
            key,
            f"{source} has {longest} positions, and train.max_length is {experiment.train.max_length}; lower it",
        )
    yield from _tokenizer(key, source, checkpoint, config)


def _tokenizer(key: str, source: Path, checkpoint: CheckpointConfig, config: dict[str, Any]) -> Iterator[Finding]:
    """Whether the tokenizer, as it will be installed, can be used, and whether it is the model's own."""
    from metaapo.assets.checkpoints import installed_tokenizer

    try:
        tokenizer = installed_tokenizer(checkpoint, source, key)
    except DataError as unusable:
        yield error(key, str(unusable).removeprefix(f"{key}: "))
        return
    except (OSError, ValueError, ImportError) as unreadable:
        reason = str(unreadable).splitlines()[0] if str(unreadable) else type(unreadable).__name__
        yield error(key, f"{source}: no readable tokenizer ({reason}); save the tokenizer beside the model")
        return
    rows = config.get("vocab_size", len(tokenizer))
    if len(tokenizer) > rows:
        yield error(
            key,
            f"{source}: the tokenizer has {len(tokenizer)} tokens and the model {rows}; take both from one checkpoint",
        )
    elif len(tokenizer) < NAMED_ROWS * rows:
        yield warning(
            key,
            f"{source}: the model has {rows} tokens and the tokenizer only {len(tokenizer)}, so it may be another "
            "model's; take both from one checkpoint",
        )


# --- cost and hardware ---------------------------------------------------------------------------------------------


def cost(experiment: Experiment) -> Iterator[Finding]:
    """Disk, and memory of a training step."""
    try:
        expected = estimate(experiment)
    except (ConfigError, DataError) as unknown:
        yield warning("estimate", str(unknown))
        return
    folder = _existing(Path(experiment.results_dir))
    if not os.access(folder, os.W_OK):
        yield error("results_dir", f"{folder.resolve()} cannot be written; set results_dir to a folder of yours")
    free = shutil.disk_usage(folder).free / 1e9
    present = sum(file.stat().st_size for file in experiment.results.rglob("*.safetensors")) / 1e9
    if expected["disk_gb"] - present > free:
        yield error(
            "results_dir",
            f"the experiment needs {expected['disk_gb']:,.1f} GB and {folder.resolve()} has {free:,.1f} GB free; "
            "set results_dir to a larger disk, or train fewer runs",
        )
    if not expected["fits"]:
        memory = expected["step_memory_gb"]
        yield error(
            "train.micro_batch_size",
            f"a training step needs {memory:,.0f} GB per {experiment.estimate.gpu}, which does not fit; lower it, set "
            "gradient_checkpointing: true, or use a launcher that shards over more processes",
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.resolve()
    return folder if folder.exists() else _existing(folder.parent)


def hardware(experiment: Experiment) -> Iterator[Finding]:
    """Processors, main memory and GPUs of this machine; jobs on a cluster have others, so most are warnings."""
    launcher = experiment.hardware.launcher
    if launcher and not (Path(launcher).is_file() or (PROJECT / launcher).is_file()):
        yield error("hardware.launcher", f"{launcher} does not exist; take one of config/accelerate/")
    wanted, gpus = experiment.hardware.processes // experiment.hardware.nodes, experiment.hardware.train.gpus
    if gpus and wanted > gpus:
        yield error(
            "hardware.train.gpus",
            f"{wanted} training processes per node want a GPU each and the job gets {gpus}; change it, or "
            "hardware.processes",
        )
    elif gpus > wanted:
        yield warning(
            "hardware.train.gpus",
            f"the job gets {gpus} GPUs per node and {wanted} training processes use one each; change it, or "
            "hardware.processes",
        )
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    for stage in ("prepare", "train", "answer"):
        job = getattr(experiment.hardware, stage)
        if job.memory_gb > 1.1 * here:
            yield warning(
                f"hardware.{stage}.memory_gb",
                f"a job asks for {job.memory_gb:.0f} GB and this machine has {here:.0f}; run on a larger one, or on a "
                "cluster with --profile profiles/slurm",
            )
    yield from _gpus(experiment)


def _gpus(experiment: Experiment) -> Iterator[Finding]:
    """The GPUs of this machine against what training needs; the tiny world needs none."""
    if experiment.world.name == "tiny":
        return
    try:
        expected = estimate(experiment)
    except (ConfigError, DataError):
        return  # `cost` says why
    found = gpu_memory()
    if not found:
        if experiment.hardware.train.gpus or expected["parameters"] > LARGE:
            yield warning(
                "hardware",
                "this machine has no GPU for a policy of "
                f"{expected['parameters'] / 1e9:.1f} billion parameters; run on one that has, or on a cluster with "
                "--profile profiles/slurm",
            )
        return
    if experiment.hardware.processes > len(found):
        yield warning(
            "hardware.processes",
            f"{experiment.hardware.processes} training processes want a GPU each and this machine has {len(found)}; "
            "lower it, or run on a cluster",
        )
    step = expected["step_memory_gb"]
    if step > 0.95 * min(found) / 1e9:
        yield error(
            "train.micro_batch_size",
            f"a training step needs {step:.0f} GB and a GPU here has {min(found) / 1e9:.0f}; lower it, set "
            "gradient_checkpointing: true, or shard over more processes",
        )


def gpu_memory() -> list[int]:
    """Bytes of each GPU of this machine; empty without one, or without torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]


def outlook(experiment: Experiment) -> str:
    """What the experiment will take, as `metaapo estimate` prints it."""
    try:
        return table(estimate(experiment), experiment)
    except (ConfigError, DataError) as unknown:
        return f"no estimate: {unknown}"
