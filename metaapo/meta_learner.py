"""The meta-learner h_phi ("alignment gap estimator"), which maps an offline pair's score to its weight in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metaapo.data import write_json

if TYPE_CHECKING:
    from metaapo.offline_pairs import OfflinePairs

GRID = torch.linspace(-6.0, 0.0, 61)


class MetaLearner(nn.Module):
    """MLP d -> hidden (tanh) -> 1 (sigmoid), with its buffer and update (paper, section "Meta-learner update"; d = 1).

    Args:
        hidden: hidden units, 100 in the paper.
        lr: learning rate of its AdamW, 5e-3 in the paper.
        weight_decay: 1e-4 in the paper.
        period: optimizer steps of the policy between two updates, T_meta.
        init: "symmetric": all weights 0.1, as in the authors' code, where all hidden units stay identical forever.
            "spread": weights uniform in [0, 0.2], the same map on average, also increasing, with units that can differ.
        seed: seed for the "spread" weights.
        inputs: fields of `OfflinePairs`, "scores" first. The weights of additional inputs start at 0, so that the
            initial map is the same function of the score.
        trained: if False, the map is never updated and `observe` does nothing.
    """

    def __init__(
        self,
        hidden: int = 100,
        lr: float = 5e-3,
        weight_decay: float = 1e-4,
        period: int = 8,
        init: str = "spread",
        seed: int = 0,
        inputs: Sequence[str] = ("scores",),
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.inputs, self.trained = tuple(inputs), trained
        self.hidden = nn.Linear(len(self.inputs), hidden)
        self.output = nn.Linear(hidden, 1)
        generator = torch.Generator().manual_seed(seed)
        of_score, of_units = torch.full((hidden, 1), 0.1), torch.full((1, hidden), 0.1)
        if init == "spread":
            of_score.uniform_(0.0, 0.2, generator=generator)
            of_units.uniform_(0.0, 0.2, generator=generator)
        with torch.no_grad():
            for layer in (self.hidden, self.output):
                layer.weight.zero_()
                layer.bias.zero_()
            self.hidden.weight[:, :1] = of_score
            self.output.weight[:] = of_units
        self.lr, self.weight_decay, self.period = lr, weight_decay, period
        self.start_iteration()

    def features(self, pairs: OfflinePairs) -> Tensor:
        """Return the map's inputs, float32 (batch, d), for offline pairs."""
        return torch.stack([getattr(pairs, name).float() for name in self.inputs], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Weights w = h_phi(features), float32 (batch,) in (0, 1), of features (batch, d), or (batch,) if d = 1."""
        features = features.float().reshape(len(features), len(self.inputs))
        return torch.sigmoid(self.output(torch.tanh(self.hidden(features)))).squeeze(-1)

    @torch.no_grad()
    def weigh(self, features: Tensor) -> Tensor:
        """The weights, detached, on the device of the features."""
        return self(features.cpu()).to(features.device)

    def start_iteration(self) -> None:
        """Begin an iteration with a fresh optimizer and an empty buffer, as each process of the authors' code does."""
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        self.buffer: list[tuple[Tensor, Tensor, Tensor]] = []
        self.steps = 0
        self.updates = 0
        self.start = self.map()

    def observe(self, features: Tensor, offline_losses: Tensor, online_losses: Tensor) -> float | None:
        """Record one optimizer step's prompts that have both pairs, and update phi at every `period`-th step.

        Args:
            features: float (m, d), the offline pairs' features, detached. m may be 0.
            offline_losses: float (m,), detached.
            online_losses: float (m,), detached.

        Returns:
            the meta-loss before the update, or None if no update was due.
        """
        if not self.trained:
            return None
        self.steps += 1
        self.buffer.append((features.cpu(), offline_losses.cpu(), online_losses.cpu()))
        if self.steps % self.period:
            return None
        columns = [torch.cat(column) for column in zip(*self.buffer)]
        self.buffer = []
        return self.update(*columns) if len(columns[0]) else None

    def update(self, features: Tensor, offline_losses: Tensor, online_losses: Tensor) -> float:
        """Step on L(phi) = mean[h(s) L_off + (1 - h(s)) L_on], whose gradient is mean[(L_off - L_on) grad h]."""
        weights = self(features)
        loss = (weights * offline_losses + (1 - weights) * online_losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return loss.item()

    def map(self) -> list[float]:
        """Evaluate h_phi on GRID, for the records; additional inputs are 0."""
        features = torch.zeros(len(GRID), len(self.inputs))
        features[:, 0] = GRID
        return [round(value, 6) for value in self.weigh(features).tolist()]

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and, as JSON, the map at the start and the end of the iteration."""
        save_file(self.state_dict(), folder / "meta_learner.safetensors")
        record: dict[str, Any] = {"grid": [round(x, 6) for x in GRID.tolist()], "start": self.start, "end": self.map()}
        write_json(folder / "meta_learner.json", record | {"updates": self.updates})

    def load(self, folder: Path) -> None:
        """Load the weights of a finished iteration."""
        self.load_state_dict(load_file(folder / "meta_learner.safetensors"))
