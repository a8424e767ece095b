"""Evaluate a released checkpoint as if it were a trained method, without training anything.

Use it to check the evaluation against published numbers before training, or to start methods from a policy that others
trained (an entry such as `theirs` with `module: released`, and `train.start: theirs`).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaapo.config import CheckpointConfig, MethodConfig
from metaapo.method import Declaration

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="Released checkpoint", role="checkpoint", sampled=0.0, trains=False)

LOGS = ("train.jsonl", "annotations.jsonl", "probes.jsonl")


class Params(MethodConfig):
    """Configuration keys of the checkpoint."""

    checkpoint: CheckpointConfig = CheckpointConfig()


def train(params: Params, context: RunContext) -> None:
    """Put the checkpoint where the trained policy of each iteration would be saved."""
    from metaapo.loop.ledger import Totals
    from metaapo.loop.run import run_iterations

    def iterate(iteration: int, folder: Path) -> dict[str, Any]:
        _put(params.checkpoint, context, iteration, folder)
        for name in LOGS:
            (folder / name).touch()
        nothing = asdict(Totals())  # nothing was sampled or annotated
        return nothing | {"annotation_ratio": 0.0, "seconds": {}, "released": params.checkpoint.path}

    run_iterations(context, iterate)


def _put(checkpoint: CheckpointConfig, context: RunContext, iteration: int, folder: Path) -> None:
    from metaapo.assets import hub
    from metaapo.assets.checkpoints import make

    if iteration > 1:
        shutil.copytree(context.iteration_path(1) / "model", folder / "model", symlinks=True)
        return
    asset = hub.of_checkpoint(f"methods.{context.run.method}.checkpoint.path", checkpoint)
    make(checkpoint, asset.locate(context.experiment.assets_dir), folder / "model", asset.key)
