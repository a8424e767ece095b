"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) inside a policy, using peft; merged when saved.

The model keeps its class, so that log-probabilities, sampling and saving see a plain language model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metaapo.config import LoraConfig
from metaapo.data import DataError

MARK = ".lora_"


def add_adapters(model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Freeze a model and add trainable float32 adapters to the target layers.

    Args:
        model: modified in place; its output does not change until the adapters are trained.
        lora: rank, scale and target layers.
        seed: seed for the randomly initialised half of the adapters.

    Raises:
        DataError: peft is not installed, or no layer has such a name.
    """
    try:
        import peft
    except ImportError as error:
        raise DataError("train.lora: adapters need the package peft; install it with the extra `lora`") from error
    torch.manual_seed(seed)
    settings = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets)
    try:
        peft.inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise DataError(f"train.lora.targets: {str(error).splitlines()[0]}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad = MARK in name
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@torch.no_grad()
def merged_state(model: PreTrainedModel, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the weights of the equivalent model without adapters: W + (alpha / rank) B A, added in float32.

    Args:
        model: the model with adapters.
        state: its state dict, if it was gathered from several processes.

    Returns:
        the state of the model without adapters, in the dtype of its frozen weights.
    """
    state = dict(state or model.state_dict())
    scales = {name: module.scaling["default"] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    merged = {}
    for name, tensor in state.items():
        if MARK in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer in scales:
            down, up = (state[f"{layer}{MARK}{side}.default.weight"] for side in "AB")
            tensor = (tensor.float() + scales[layer] * (up.float() @ down.float())).to(tensor.dtype)
        merged[name.replace(".base_layer.", ".")] = tensor
    return merged
