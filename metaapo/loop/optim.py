"""The optimizer used by every method: AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from metaapo.config import TrainConfig


def adamw(model: nn.Module, config: TrainConfig, steps: int, lr: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Create AdamW for a model's trainable parameters, and its learning-rate schedule.

    The rate rises linearly over the first `warmup_ratio` of the steps (at least one), then follows a cosine from `lr`
    down to `lr * lr_end_ratio`.

    Args:
        model: the model whose parameters with `requires_grad` are trained.
        config: the section `train`.
        steps: optimizer steps of the iteration.
        lr: peak learning rate.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=config.adam_betas, weight_decay=config.weight_decay)
    warmup = max(1, round(config.warmup_ratio * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return config.lr_end_ratio + (1 - config.lr_end_ratio) * 0.5 * (1 + np.cos(np.pi * progress))

    return optimizer, LambdaLR(optimizer, factor)
