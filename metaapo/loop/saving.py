"""Save the trained policy as an ordinary checkpoint: adapters merged, one file, one dtype."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from metaapo.loop.policies import Policies
from metaapo.models.adapters import merged_state
from metaapo.models.load import SOURCE, set_saved_dtype
from metaapo.models.logps import LogpsModule


def save_policy(policies: Policies, folder: Path, wrapped: nn.Module | None = None) -> None:
    """Write the trained policy and its tokenizer to `folder`/model.

    Args:
        policies: the run's models.
        folder: the iteration's folder.
        wrapped: the policy prepared by accelerate, whose shards are gathered; all processes must call this.
    """
    accelerator, config = policies.processes.accelerator, policies.config
    state = None
    if wrapped is not None and isinstance(accelerator.unwrap_model(wrapped), LogpsModule):
        state = accelerator.get_state_dict(wrapped)
        state = {name.removeprefix("module.").removeprefix("policy."): tensor for name, tensor in state.items()}
    if config.lora.rank:
        state = merged_state(policies.policy, state)
    if config.precision == "bf16":
        state = {name: tensor.to(torch.bfloat16) for name, tensor in (state or policies.policy.state_dict()).items()}
    if not policies.processes.is_main:
        return
    policies.policy.save_pretrained(folder / "model", state_dict=state, max_shard_size="100TB")
    policies.tokenizer.save_pretrained(folder / "model")
    if config.precision == "bf16":
        set_saved_dtype(folder / "model", "bfloat16")
    source = policies.context.sft / SOURCE
    if source.is_file():
        shutil.copy(source, folder / "model" / SOURCE)
