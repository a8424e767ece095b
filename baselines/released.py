"""A released checkpoint stands as a method: nothing is trained, it is answered for, judged and scored like the others.

So evaluation can be checked against published numbers before anything is trained here; and a policy that others trained
can be what MetaAPO starts from (an entry named `dpo` with `module: released`, and `train.start: dpo`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from metaapo.config import CheckpointConfig, MethodConfig
from metaapo.method import Declaration

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="Released checkpoint", role="checkpoint", sampled=0.0, trains=False)

# Nothing was sampled, annotated or measured.
COUNTS = ("prompts", "sampled", "responses_generated", "responses_scored", "reward_model_calls", "tokens_generated")
LOGS = ("train.jsonl", "annotations.jsonl", "probes.jsonl")


class Params(MethodConfig):
    """The page's keys in the configuration."""

    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _is_given(self) -> Params:
        if not self.checkpoint.path:
            raise ValueError("checkpoint.path is required: a hub name or a folder")
        return self


def train(params: Params, context: RunContext) -> None:
    """Put the checkpoint where a trained policy would be, the same after every iteration."""
    from metaapo.loop.run import run_iterations

    def iterate(iteration: int, folder: Path) -> dict[str, Any]:
        _place(params.checkpoint, context, iteration, folder)
        for name in LOGS:
            (folder / name).touch()
        counts = dict.fromkeys((*COUNTS, "pairs", "ties", "identical"), 0)
        return counts | {"annotation_ratio": 0.0, "seconds": {}, "released": params.checkpoint.path}

    run_iterations(context, iterate)


def _place(checkpoint: CheckpointConfig, context: RunContext, iteration: int, folder: Path) -> None:
    from metaapo.assets import hub
    from metaapo.assets.checkpoints import make

    if iteration > 1:
        shutil.copytree(context.iteration_path(1) / "model", folder / "model", symlinks=True)
        return
    asset = hub.of_checkpoint(f"methods.{context.run.method}.checkpoint.path", checkpoint)
    make(checkpoint, asset.locate(context.experiment.assets_dir), folder / "model", asset.key)
