"""The models of one run: the policy being trained and the frozen models, which are loaded and evicted as needed.

Frozen models are loaded when first used and then kept in memory; if `hardware.resident` is false, only one of them is
in memory at a time.
"""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from transformers import PreTrainedModel

from metaapo.data import DataError
from metaapo.loop.processes import Processes
from metaapo.loop.run import RunContext
from metaapo.models.adapters import add_adapters
from metaapo.models.load import load_policy, load_reward_model, load_tokenizer
from metaapo.models.logps import LogpsModule


class Policies:
    """The policy, reference, SFT policy and reward model of a run.

    Attributes:
        loads: how often the iteration has loaded each model from disk, and started an engine, in this process.
        checkpoint: the folder with the policy's current weights; None once they have been trained further.
        tokenizer: tokenizer of the policy, reference and SFT policy.
        reward_tokenizer: tokenizer of the reward model.
    """

    def __init__(self, context: RunContext, processes: Processes) -> None:
        self.context, self.processes = context, processes
        self.config = context.experiment.train_of(context.run.method)
        self.resident = context.experiment.hardware.resident
        self.frozen_dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        self.tokenizer = load_tokenizer(context.sft)
        self.reward_tokenizer = load_tokenizer(context.reward_model)
        self.loads: Counter[str] = Counter()
        self.checkpoint: Path | None = None
        self._reference_path = context.sft
        self._frozen: dict[Path, PreTrainedModel] = {}
        self._policy: PreTrainedModel | None = None

    def start(self, iteration: int) -> None:
        """Begin an iteration; its policy and reference are loaded from disk when first used.

        Raises:
            DataError: the disk has no room for the iteration's checkpoint.
        """
        self.loads.clear()
        self.checkpoint = self.context.start_path(iteration)
        self._reference_path = self.context.reference_path(iteration)
        lasting = (self._reference_path, self.context.sft, self.context.reward_model)
        self._frozen = {path: model for path, model in self._frozen.items() if path in lasting}
        self._policy = None
        needed = sum(file.stat().st_size for file in self.checkpoint.glob("*.safetensors"))
        free = shutil.disk_usage(self.context.path).free
        if needed > free:
            raise DataError(
                f"{self.context.path}: an iteration saves {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free "
                "some space, or set results_dir to a larger disk"
            )

    @property
    def policy(self) -> PreTrainedModel:
        """The policy being trained, with float32 weights unless only adapters are trained."""
        if self._policy is None:
            if self.checkpoint is None:
                raise DataError(f"{self.context.run.id}: the policy is neither in memory nor on disk")
            lora = self.config.lora
            self.loads["policy"] += 1
            model, _ = load_policy(self.checkpoint, self.frozen_dtype if lora.rank else torch.float32)
            if lora.rank:
                add_adapters(model, lora, self.context.torch_seed(1, "lora"))
            if self.config.gradient_checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": False})
            self._policy = model.to(self.processes.device)
        return self._policy

    @property
    def sft(self) -> PreTrainedModel:
        """The SFT policy, relative to which the KL divergence is measured."""
        return self._frozen_model("sft", self.context.sft, load_policy)

    @property
    def reference(self) -> PreTrainedModel:
        """The frozen reference of the iteration."""
        return self._frozen_model("reference", self._reference_path, load_policy)

    @property
    def reward_model(self) -> PreTrainedModel:
        """The annotator."""
        return self._frozen_model("reward_model", self.context.reward_model, load_reward_model)

    def _frozen_model(self, name: str, path: Path, load: Any) -> PreTrainedModel:
        if path not in self._frozen:
            if not self.resident:
                self._evict_frozen()
            self.loads[name] += 1
            model = load(path, self.frozen_dtype)[0].to(self.processes.device)
            self._frozen[path] = model.requires_grad_(False)
        return self._frozen[path]

    def release(self) -> None:
        """Free the accelerator's memory; models are reloaded from disk when used again."""
        self._policy = None
        self._evict_frozen()

    def start_training(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Prepare the policy and its optimizer for the launcher: single, replicated, or sharded over processes.

        From here on the checkpoint on disk is outdated.
        """
        policy, self.checkpoint = self.policy, None
        accelerator = self.processes.accelerator
        if accelerator.distributed_type == DistributedType.NO:
            return accelerator.prepare(policy, optimizer)
        if not self.resident:
            self._evict_frozen()
        return accelerator.prepare(LogpsModule(policy), optimizer)

    def finish_training(self, saved: Path) -> None:
        """End an iteration: drop optimizer, gradients and wrapped model; the policy is now the saved checkpoint."""
        self.checkpoint = saved
        self.processes.accelerator.free_memory()
        self._policy = None
        _collect_garbage()

    def _evict_frozen(self) -> None:
        self._frozen.clear()
        _collect_garbage()


def _collect_garbage() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
