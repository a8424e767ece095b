"""What a run holds while it trains, and what every loop does with it: load, sample, probe, record.

The shared loop (metaapo/loop/trainer.py) stands on it, and so does PPO (baselines/ppo.py), which brings its own update.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from metaapo.data import DataError, Message, read_jsonl, require_keys, write_jsonl
from metaapo.loop.annotate import reward_responses
from metaapo.loop.processes import Processes
from metaapo.loop.run import RunContext
from metaapo.models.adapters import add_adapters, merged_state
from metaapo.models.generate import Response, generate, sampler_version
from metaapo.models.load import (
    SOURCE,
    encode_prompt,
    encode_response,
    load_policy,
    load_reward_model,
    load_tokenizer,
    set_saved_dtype,
)
from metaapo.models.logps import IntList, LogpsModule, all_sequence_logps

ADVICE = {  # what to change when memory runs out
    "score": "lower hardware.score_batch_size, or set hardware.resident to false",
    "sample": "lower sampling.batch_size (transformers) or sampling.vllm.gpu_memory_utilization (vllm)",
    "annotate": "lower hardware.score_batch_size, or set hardware.resident to false",
    "train": "lower train.micro_batch_size, set train.gradient_checkpointing, train.precision: bf16, "
    "hardware.resident: false, or spread the policy over more GPUs (hardware.launcher: config/accelerate/zero3.yaml)",
}
PROBE_PROMPTS = 64  # enough for a curve of KL and length; the benchmarks, not the probes, measure quality


@dataclass(frozen=True)
class Pair:
    """A preference pair as token ids, with the reference's log-probabilities (natural log, summed).

    Attributes:
        chosen: y_w.
        rejected: y_l.
        reference_chosen: log ref(y_w given x).
        reference_rejected: log ref(y_l given x).
        greedy: y_0, the prompt's greedy response, where the method asks for it.
        reference_greedy: log ref(y_0 given x).
    """

    chosen: IntList
    rejected: IntList
    reference_chosen: float = 0.0
    reference_rejected: float = 0.0
    greedy: IntList | None = None
    reference_greedy: float = 0.0


@dataclass
class Prompt:
    """One prompt of an iteration's part with its pairs and its line of the annotation ledger."""

    id: str
    messages: list[Message]
    ids: IntList
    texts: tuple[str, str]
    offline: Pair
    online: Pair | None = None
    reward_gap: float = 0.0
    ledger: dict[str, Any] = field(default_factory=dict)


def read_part(path: Path, iteration: int) -> list[dict[str, Any]]:
    """The offline pairs of one iteration.

    Raises:
        DataError: a record lacks a key, holds an empty response, or the iteration has no pairs.
    """
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        require_keys(row, ("id", "messages", "chosen", "rejected", "iteration"), f"{path}:{number}")
        for side in ("chosen", "rejected"):
            if not row[side].strip():
                raise DataError(f"{path}:{number}: empty {side} response; drop the pair or fill it in")
    part = [row for row in rows if row["iteration"] == iteration]
    if not part:
        raise DataError(f"{path}: no pairs of iteration {iteration}; lower `iterations` or build a larger world")
    return part


class Workbench:
    """The models and settings of one run.

    Frozen models are loaded when they are first used and stay, or, where `hardware.resident` is false, only one of them
    is in memory at a time.

    Attributes:
        weights: the checkpoint that the policy's weights are equal to; None once they have been trained.
        processes: the processes of this job; each does its share of what is listed below.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.config = context.experiment.train_of(context.run.method)
        self.sampling = context.experiment.sampling_of(context.run.method)
        self.hardware = context.experiment.hardware
        bf16 = self.config.precision == "bf16"
        no_gpu = not torch.accelerator.is_available()  # several processes on CPUs have to be asked for
        AcceleratorState._reset_state()  # of another run in this process, which may have had another precision
        self.accelerator = Accelerator(cpu=no_gpu, mixed_precision="bf16" if bf16 else "no")
        self.frozen_dtype = torch.bfloat16 if bf16 else torch.float32
        self.processes = Processes(self.accelerator)
        _check_processes(self.processes.n, self.hardware.processes, self.config.batch_size)
        self.device = self.accelerator.device
        self.tokenizer = load_tokenizer(context.world / "sft")
        self.reward_tokenizer = load_tokenizer(context.world / "reward_model")
        self._frozen: dict[Path, PreTrainedModel] = {}
        self._policy: PreTrainedModel | None = None
        self.weights: Path | None = None

    def load(self, iteration: int) -> None:
        """Begin an iteration: its policy and its reference are taken from disk when they are first used.

        Raises:
            DataError: the disk has no room for what the iteration will save.
        """
        self.weights = self.context.start_path(iteration)
        self._reference_path = self.context.reference_path(iteration)
        self._frozen = {p: m for p, m in self._frozen.items() if p in (self._reference_path, *self._lasting)}
        self._policy = None
        needed = sum(file.stat().st_size for file in self.weights.glob("*.safetensors"))
        free = shutil.disk_usage(self.context.path).free
        if needed > free:
            raise DataError(
                f"{self.context.path}: an iteration saves {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free "
                "some, or set results_dir to a larger disk"
            )

    @property
    def _lasting(self) -> tuple[Path, Path]:
        return self.context.world / "sft", self.context.world / "reward_model"

    @property
    def policy(self) -> PreTrainedModel:
        """The policy being trained, float32 weights unless adapters train beside frozen ones."""
        if self._policy is None:
            if self.weights is None:
                raise DataError(f"{self.context.run.id}: the policy is neither in memory nor on disk")
            lora = self.config.lora
            model, _ = load_policy(self.weights, self.frozen_dtype if lora.rank else torch.float32)
            if lora.rank:
                add_adapters(model, lora, self.context.torch_seed(1, "lora"))
            if self.config.gradient_checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": False})
            self._policy = model.to(self.device)
        return self._policy

    @policy.setter
    def policy(self, model: PreTrainedModel | None) -> None:
        self._policy = model

    @property
    def sft(self) -> PreTrainedModel:
        """The SFT policy, from which the KL divergence is measured."""
        return self._frozen_model(self.context.world / "sft", load_policy)

    @property
    def reference(self) -> PreTrainedModel:
        """The frozen reference of the iteration."""
        return self._frozen_model(self._reference_path, load_policy)

    @property
    def reward_model(self) -> PreTrainedModel:
        """The annotator."""
        return self._frozen_model(self.context.world / "reward_model", load_reward_model)

    def _frozen_model(self, path: Path, load: Any) -> PreTrainedModel:
        if path not in self._frozen:
            if not self.hardware.resident:
                self._frozen.clear()
                self._collect()
            model = load(path, self.frozen_dtype)[0].to(self.device)
            self._frozen[path] = model.requires_grad_(False)
        return self._frozen[path]

    def release(self) -> None:
        """Free the accelerator's memory for others; models come back from disk when they are used again."""
        self._frozen.clear()
        self._policy = None
        self._collect()

    def prepare(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The policy and its optimizer as the launcher wants them: alone, replicated, or spread over processes."""
        if self.accelerator.distributed_type == DistributedType.NO:
            return self.accelerator.prepare(self.policy, optimizer)
        plugin = self.accelerator.state.deepspeed_plugin
        if plugin is not None:
            plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = self.config.micro_batch_size
            plugin.deepspeed_config["gradient_clipping"] = self.config.max_grad_norm
        if not self.hardware.resident:
            self._frozen.clear()
            self._collect()
        return self.accelerator.prepare(LogpsModule(self.policy), optimizer)

    def release_training(self, saved: Path) -> None:
        """After an iteration: drop optimizer, gradients and wrapped model; the policy is what was saved."""
        self.weights = saved
        self.accelerator.free_memory()
        self._policy = None
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def arithmetic(self) -> AbstractContextManager:
        """bf16 matrix products where `train.precision` says so."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def read_prompts(self, iteration: int) -> list[Prompt]:
        """The prompts of an iteration's part, with their offline pairs as token ids.

        Raises:
            DataError: a bad record, or a pair longer than `train.max_length`.
        """
        path = self.context.world / "data" / "pairs.jsonl"
        prompts = []
        for row in read_part(path, iteration):
            ids = encode_prompt(self.tokenizer, row["messages"])
            pair = Pair(*(encode_response(self.tokenizer, row[side]) for side in ("chosen", "rejected")))
            longest = len(ids) + max(len(pair.chosen), len(pair.rejected))
            if longest > self.config.max_length:
                raise DataError(
                    f"{path}: pair {row['id']} has {longest} tokens, train.max_length is {self.config.max_length}; "
                    "raise it or drop the pair"
                )
            ledger = {"id": row["id"], "task": row.get("task", "")}
            texts = (row["chosen"], row["rejected"])
            prompts.append(Prompt(row["id"], row["messages"], ids, texts, pair, ledger=ledger))
        return prompts

    def logps(
        self, model: nn.Module, prompts: Sequence[IntList], responses: Sequence[IntList], shared: bool = True
    ) -> Tensor:
        """Log-probabilities of responses, float32 (n,), without gradients, on the CPU.

        Args:
            model: a policy.
            prompts: token ids.
            responses: token ids, same order.
            shared: all processes ask for the same and share the work; False: this one asks alone.
        """

        def work(items: Sequence[tuple[IntList, IntList]]) -> list[float]:
            with self.arithmetic():
                return all_sequence_logps(
                    model, *zip(*items), self.tokenizer.pad_token_id, self.hardware.score_batch_size
                ).tolist()

        items = list(zip(prompts, responses, strict=True))
        if not items:
            return torch.zeros(0)
        return torch.tensor(self.processes.share(items, work) if shared else work(items))

    def sample(
        self, prompts: Sequence[Prompt], n: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Response]]:
        """n responses of the current policy to each prompt.

        Every process samples for its share of the prompts. With several, the transformers backend draws from another
        random stream in each; vLLM seeds every prompt by itself.
        """
        settings = partial(
            generate,
            tokenizer=self.tokenizer,
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=self.sampling.max_new_tokens,
            batch_size=self.sampling.batch_size,
        )
        if self.sampling.backend == "vllm":
            return self._sample_with_vllm(prompts, settings, seed)
        self._check_whole_policy()

        def work(own: Sequence[Prompt]) -> list[list[Response]]:
            policy, messages = self.accelerator.unwrap_model(self.policy), [prompt.messages for prompt in own]
            with self.arithmetic():
                return settings(policy, conversations=messages, seed=(seed + self.processes.rank) % 2**63)

        return self.processes.share(prompts, work)

    def _sample_with_vllm(self, prompts: Sequence[Prompt], settings: Any, seed: int) -> list[list[Response]]:
        if self.weights is None:
            raise DataError(
                f"{self.context.run.id}: vLLM samples from checkpoints on disk; use the transformers backend"
            )
        self.release()

        def work(own: Sequence[Prompt]) -> list[list[Response]]:
            messages = [prompt.messages for prompt in own]
            return settings(self.weights, conversations=messages, seed=seed, engine=self.sampling.vllm)

        return self.processes.share(prompts, work)

    def _check_whole_policy(self) -> None:
        if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise DataError(
                f"{self.hardware.launcher}: the policy's weights are spread over processes, transformers cannot sample "
                "from them; set sampling.backend to vllm"
            )

    @property
    def can_probe_midway(self) -> bool:
        """Whether the policy can be sampled while it is trained; vLLM waits for the saved checkpoint."""
        return self.sampling.backend == "transformers"

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of candidate responses, same shape as `texts`."""

        def work(items: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
            messages, own = [prompt.messages for prompt, _ in items], [texts for _, texts in items]
            with self.arithmetic():
                size = self.hardware.score_batch_size
                return reward_responses(self.reward_model, self.reward_tokenizer, messages, own, size)[0]

        return self.processes.share(list(zip(prompts, texts, strict=True)), work)

    def optimizer(self, model: nn.Module, steps: int, lr: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW with linear warm-up and a cosine down to lr * lr_end_ratio; from here on the checkpoint is outdated."""
        config = self.config
        self.weights = None
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=lr, betas=config.adam_betas, weight_decay=config.weight_decay)
        warmup = max(1, round(config.warmup_ratio * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = (step - warmup) / max(1, steps - warmup)
            return config.lr_end_ratio + (1 - config.lr_end_ratio) * 0.5 * (1 + np.cos(np.pi * progress))

        return optimizer, LambdaLR(optimizer, factor)

    def probe(self, iteration: int, step: int, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """Sample one response to a few prompts: how far has the policy moved, how long are its answers?

        The reward here is for the record only; it trains nothing and is no part of the annotation budget.
        """
        probed = prompts[:PROBE_PROMPTS]
        seed = self.context.torch_seed(iteration, f"probe{step}")
        own = [response for (response,) in self.sample(probed, 1, 1.0, 1.0, seed)]
        rewards = self.rewards(probed, [[response.text] for response in own])
        sft = self.logps(self.sft, [p.ids for p in probed], [response.token_ids for response in own]).tolist()
        return [
            {
                "iteration": iteration,
                "step": step,
                "id": prompt.id,
                "response": response.text,
                "policy_logp": sum(response.logps),
                "sft_logp": sft_logp,
                "reward": reward[0],
                "tokens": len(response.token_ids),
                "finished": response.finished,
            }
            for prompt, response, sft_logp, reward in zip(probed, own, sft, rewards)
        ]

    def save(self, folder: Path, prompts: list[Prompt], log: list[dict], probes: list[dict]) -> None:
        """Write the trained policy, the log, the annotation ledger and the probes of an iteration."""
        self.save_policy(folder)
        self.record(folder, prompts, log, probes)

    def save_policy(self, folder: Path, wrapped: nn.Module | None = None) -> None:
        """Write the trained policy as a checkpoint like any other: adapters merged, one file, one dtype.

        Args:
            folder: of the iteration.
            wrapped: the policy as accelerate prepared it, whose shards are gathered; all processes must call.
        """
        state = None
        if wrapped is not None and isinstance(self.accelerator.unwrap_model(wrapped), LogpsModule):
            state = self.accelerator.get_state_dict(wrapped)
            state = {name.removeprefix("module.").removeprefix("policy."): tensor for name, tensor in state.items()}
        if self.config.lora.rank:
            state = merged_state(self.policy, state)
        if self.config.precision == "bf16":
            state = {name: tensor.to(torch.bfloat16) for name, tensor in (state or self.policy.state_dict()).items()}
        if not self.processes.is_main:
            return
        self.policy.save_pretrained(folder / "model", state_dict=state, max_shard_size="100TB")
        self.tokenizer.save_pretrained(folder / "model")
        if self.config.precision == "bf16":
            set_saved_dtype(folder / "model", "bfloat16")
        source = self.context.world / "sft" / SOURCE
        if source.is_file():
            shutil.copy(source, folder / "model" / SOURCE)

    def record(self, folder: Path, prompts: list[Prompt], log: list[dict], probes: list[dict]) -> None:
        """Write the log, the annotation ledger and the probes of an iteration."""
        if not self.processes.is_main:
            return
        write_jsonl(folder / "train.jsonl", log)
        write_jsonl(folder / "annotations.jsonl", [prompt.ledger for prompt in prompts])
        write_jsonl(folder / "probes.jsonl", probes)

    def summary(self, prompts: list[Prompt], probes: list[dict], clock: Clock) -> dict[str, Any]:
        """The iteration in numbers; annotation_ratio is responses scored, relative to K for every prompt."""
        ledger = [prompt.ledger for prompt in prompts]
        outcomes = [row["outcome"] for row in ledger]
        scored = sum(row["responses"] for row in ledger)
        last = [row for row in probes if row["step"] == probes[-1]["step"]]
        return {
            "prompts": len(prompts),
            "sampled": sum(row["sampled"] for row in ledger),
            "responses_generated": sum(row["generated"] for row in ledger),
            "responses_scored": scored,
            "reward_model_calls": sum(row["calls"] for row in ledger),
            "tokens_generated": sum(row["tokens"] for row in ledger),
            "pairs": outcomes.count("pair"),
            "ties": outcomes.count("tie"),
            "identical": outcomes.count("identical"),
            "annotation_ratio": scored / (self.context.experiment.sampling.k * len(prompts)),
            "kl": float(np.mean([row["policy_logp"] - row["sft_logp"] for row in last])),
            "mean_length": float(np.mean([row["tokens"] for row in last])),
            "finished": float(np.mean([row["finished"] for row in last])),
            "proxy_reward": float(np.mean([row["reward"] for row in last])),
            "seconds": clock.seconds,
            "processes": self.processes.n,
            "sampler": sampler_version(self.sampling),
        }


class Clock:
    """Seconds spent by stage: `with clock("sample"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"score": 0.0, "sample": 0.0, "annotate": 0.0, "train": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise DataError(f"out of memory in the stage {stage!r} ({_first_line(error)}); {ADVICE[stage]}") from error
        self.seconds[stage] = round(self.seconds[stage] + time.perf_counter() - start, 3)


def _check_processes(started: int, wanted: int, batch_size: int) -> None:
    """The global batch is what the configuration says, whatever the number of processes."""
    if started != wanted:
        raise DataError(f"hardware.processes is {wanted}, but {started} started; check hardware.launcher, or change it")
    if batch_size % started:
        raise DataError(f"train.batch_size {batch_size} is no multiple of {started} processes; change either")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
