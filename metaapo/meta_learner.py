"""The meta-learner h_phi ("alignment gap estimator"): from an offline pair's score to its weight in the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metaapo.data import write_json

GRID = torch.linspace(-6.0, 0.0, 61)


class MetaLearner(nn.Module):
    """MLP 1 -> hidden (tanh) -> 1 (sigmoid), its buffer and its update (paper, section "Meta-learner update").

    Args:
        hidden: hidden units, 100 in the paper.
        lr: learning rate of its AdamW, 5e-3 in the paper.
        weight_decay: 1e-4 in the paper.
        period: optimizer steps of the policy between two updates, T_meta.
        init: "symmetric": all weights 0.1, as in the authors' code, where all hidden units stay identical for ever.
            "spread": weights uniform in [0, 0.2], the same map on average and growing too, with units that can differ.
        seed: of the "spread" weights.
    """

    def __init__(
        self,
        hidden: int = 100,
        lr: float = 5e-3,
        weight_decay: float = 1e-4,
        period: int = 8,
        init: str = "spread",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (self.hidden, self.output):
                layer.bias.zero_()
                layer.weight.fill_(0.1)
                if init == "spread":
                    layer.weight.uniform_(0.0, 0.2, generator=generator)
        self.lr, self.weight_decay, self.period = lr, weight_decay, period
        self.start_iteration()

    def forward(self, scores: Tensor) -> Tensor:
        """Weights w = h_phi(score), float32 (batch,) in (0, 1), of scores (batch,), <= 0."""
        return torch.sigmoid(self.output(torch.tanh(self.hidden(scores.float().unsqueeze(-1))))).squeeze(-1)

    @torch.no_grad()
    def weigh(self, scores: Tensor) -> Tensor:
        """The weights, detached, on the device of the scores."""
        return self(scores.cpu()).to(scores.device)

    def start_iteration(self) -> None:
        """Begin an iteration: fresh optimizer and empty buffer, as a new training process of the authors' code has."""
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        self.buffer: list[tuple[Tensor, Tensor, Tensor]] = []
        self.steps = 0
        self.updates = 0
        self.start = self.map()

    def observe(self, scores: Tensor, offline_losses: Tensor, online_losses: Tensor) -> float | None:
        """Take in one optimizer step's prompts that have both pairs; update phi at every `period`-th step.

        Args:
            scores: float (m,), the offline pairs' scores, detached. m may be 0.
            offline_losses: float (m,), detached.
            online_losses: float (m,), detached.

        Returns:
            the meta-loss before the update, or None where none was due.
        """
        self.steps += 1
        self.buffer.append((scores.cpu(), offline_losses.cpu(), online_losses.cpu()))
        if self.steps % self.period:
            return None
        columns = [torch.cat(column) for column in zip(*self.buffer)]
        self.buffer = []
        return self.update(*columns) if len(columns[0]) else None

    def update(self, scores: Tensor, offline_losses: Tensor, online_losses: Tensor) -> float:
        """One step on L(phi) = mean[h(s) L_off + (1 - h(s)) L_on], whose gradient is mean[(L_off - L_on) grad h]."""
        weights = self(scores)
        loss = (weights * offline_losses + (1 - weights) * online_losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return loss.item()

    def map(self) -> list[float]:
        """h_phi on GRID, for the record."""
        return [round(value, 6) for value in self.weigh(GRID).tolist()]

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and, as JSON, the map at the start and the end of the iteration."""
        save_file(self.state_dict(), folder / "meta_learner.safetensors")
        record: dict[str, Any] = {"grid": [round(x, 6) for x in GRID.tolist()], "start": self.start, "end": self.map()}
        write_json(folder / "meta_learner.json", record | {"updates": self.updates})

    def load(self, folder: Path) -> None:
        """Take over the weights of a finished iteration."""
        self.load_state_dict(load_file(folder / "meta_learner.safetensors"))
