"""The stages of an iteration: timing, and what to change if one runs out of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metaapo.data import DataError

STAGES = ("score", "sample", "annotate", "train")
ADVICE = {  # what to change when memory runs out
    "score": "lower hardware.score_batch_size, or set hardware.resident to false",
    "sample": "lower sampling.batch_size (transformers) or sampling.vllm.gpu_memory_utilization (vllm)",
    "annotate": "lower hardware.score_batch_size, or set hardware.resident to false",
    "train": "lower train.micro_batch_size, set train.gradient_checkpointing, train.precision: bf16, "
    "hardware.resident: false, or spread the policy over more GPUs (hardware.launcher: config/accelerate/fsdp.yaml)",
}


class Clock:
    """Measures the seconds spent per stage: `with clock("sample"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage.

        Raises:
            DataError: the block ran out of memory; the message says which setting to change.
        """
        start = time.perf_counter()
        try:
            yield
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise DataError(f"out of memory in the stage {stage!r} ({_first_line(error)}); {ADVICE[stage]}") from error
        self.seconds[stage] = round(self.seconds[stage] + time.perf_counter() - start, 3)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
