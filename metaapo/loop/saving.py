"""Save the trained policy as an ordinary checkpoint: adapters merged, one file, one dtype."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from metaapo.data import DataError
from metaapo.loop.policies import Policies
from metaapo.models.adapters import merged_state
from metaapo.models.load import SOURCE, set_saved_dtype
from metaapo.models.logps import LogpsModule


def save_policy(policies: Policies, folder: Path, wrapped: nn.Module | None = None) -> None:
    """Write the trained policy and its tokenizer to `folder`/model.

    Args:
        policies: the run's models.
        folder: the iteration's folder.
        wrapped: the policy prepared by accelerate, whose shards are gathered; all processes must call this, and none
            returns before the folder is complete.

    Raises:
        DataError: the folder could not be written.
    """
    accelerator = policies.processes.accelerator
    state = None
    if wrapped is not None and isinstance(accelerator.unwrap_model(wrapped), LogpsModule):
        state = accelerator.get_state_dict(wrapped)
        state = {name.removeprefix("module.").removeprefix("policy."): tensor for name, tensor in state.items()}
    policies.processes.from_main(lambda: _write(policies, folder, state))


def _write(policies: Policies, folder: Path, state: dict[str, Tensor] | None) -> None:
    """Write the checkpoint, in the main process, which alone holds the gathered `state`."""
    config = policies.config
    if config.lora.rank:
        state = merged_state(policies.policy, state)
    if config.precision == "bf16":
        state = {name: tensor.to(torch.bfloat16) for name, tensor in (state or policies.policy.state_dict()).items()}
    try:
        policies.policy.save_pretrained(folder / "model", state_dict=state, max_shard_size="100TB")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{folder / 'model'}: cannot be written ({error}); free some space, or set results_dir to a larger disk"
        ) from error
    policies.tokenizer.save_pretrained(folder / "model")
    if config.precision == "bf16":
        set_saved_dtype(folder / "model", "bfloat16")
    source = policies.context.sft / SOURCE
    if source.is_file():
        shutil.copy(source, folder / "model" / SOURCE)
