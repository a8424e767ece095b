"""The processes of one training job: each does a share of the scoring, sampling and annotation; results are gathered.

`python -m metaapo.train` starts one process, `accelerate launch` several (docs/scaling.md). An error in one of them is
raised in all, so that none waits forever.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn

from metaapo.config import HardwareConfig, TrainConfig
from metaapo.data import DataError

A = TypeVar("A")
B = TypeVar("B")


def start_processes(train: TrainConfig, hardware: HardwareConfig) -> Processes:
    """Join the processes that the launcher started.

    Raises:
        DataError: their number differs from the configuration.
    """
    # Others wait while one process starts an engine or writes a checkpoint; the job's own limit ends what hangs.
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=hardware.train.hours))
    no_gpu = not torch.accelerator.is_available()  # several processes on CPUs have to be asked for
    AcceleratorState._reset_state()  # of another run in this process, which may have had another precision
    precision = "bf16" if train.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=no_gpu, mixed_precision=precision, kwargs_handlers=[timeout])
    check_processes(accelerator.num_processes, hardware.processes)
    return Processes(accelerator)


def check_processes(started: int, wanted: int) -> None:
    """Make sure that the global batch is what the configuration says, which counts on so many processes.

    Raises:
        DataError: another number of processes was started.
    """
    if started != wanted:
        raise DataError(f"hardware.processes is {wanted}, but {started} started; check hardware.launcher, or change it")


class Processes:
    """All processes of the job, seen from one of them."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.n, self.rank = accelerator.num_processes, accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    def arithmetic(self) -> AbstractContextManager:
        """bf16 matrix products where `train.precision` says so."""
        if self.accelerator.mixed_precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.n > 1:
            self.accelerator.wait_for_everyone()

    def from_main(self, compute: Callable[[], A]) -> A:
        """What the main process computes; the others wait for it.

        Raises:
            DataError: the main process raised one.
        """
        if self.n == 1:
            return compute()
        answer = _attempt(compute) if self.is_main else None
        box = [answer]
        broadcast_object_list(box)
        return _result(box)[0]

    def share(
        self,
        items: Sequence[A],
        work: Callable[[Sequence[A]], Sequence[B]],
        parts: Callable[[int], list[list[int]]] | None = None,
        every: int = 1,
    ) -> list[B]:
        """Work on items, each process on a part of them.

        Args:
            items: the same in every process.
            work: from a part of the items (maybe empty) to one result per item.
            parts: from a number of parts to the indices of the items in each; None: contiguous parts of equal size.
            every: only every so many-th process works, such as the first of those whose GPUs serve one engine.

        Returns:
            all results, in the order of the items, in every process.

        Raises:
            DataError: a process raised one.
        """
        if self.n == 1:
            return list(work(items))
        divided = (parts or (lambda n: contiguous(len(items), n)))(self.n // every)
        own = divided[self.rank // every] if self.rank % every == 0 else []
        mine = [items[i] for i in own]
        answers = _result(gather_object([_attempt(lambda: list(work(mine)) if mine else [])]))
        placed = dict(
            zip((i for part in divided for i in part), (row for part in answers for row in part), strict=True)
        )
        return [placed[i] for i in range(len(items))]

    def interleave(self, mine: Tensor) -> Tensor:
        """Rows of all processes, (batch, ...), where process r holds rows r, r + n, r + 2n ... of the batch."""
        if self.n == 1:
            return mine
        parts = gather_object([mine.detach().cpu()])
        rows = torch.empty((sum(map(len, parts)), *mine.shape[1:]), dtype=mine.dtype)
        for rank, part in enumerate(parts):
            rows[rank :: self.n] = part
        return rows.to(mine.device)

    @contextmanager
    def accumulate(self, model: nn.Module, last: bool) -> Iterator[None]:
        """One micro-batch of an optimizer step: gradients are exchanged once, in the last one.

        Where weights are spread over processes, each micro-batch's gradients are: keeping them whole would not fit.
        """
        if self.n == 1:
            yield
            return
        self.accelerator.gradient_state._set_sync_gradients(last)  # what accelerate's own accumulate() sets
        replicated = self.accelerator.distributed_type in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
        with nullcontext() if last or not replicated else self.accelerator.no_sync(model):
            yield

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        return value if self.n == 1 else sum(gather_object([value])) / self.n


def contiguous(items: int, n: int) -> list[list[int]]:
    """The indices of items, divided into n contiguous parts of equal size."""
    bounds = [items * i // n for i in range(n + 1)]
    return [list(range(start, end)) for start, end in itertools.pairwise(bounds)]


def together(keys: Sequence[Hashable], weights: Sequence[float], n: int) -> list[list[int]]:
    """The indices of items, divided into n parts of about equal weight; items with the same key stay together.

    Args:
        keys: of each item, such as the prompt that several responses share.
        weights: of each item, such as its tokens, > 0.
        n: number of parts.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    heaviest_first = sorted(groups.values(), key=lambda group: -sum(weights[i] for i in group))
    parts: list[list[int]] = [[] for _ in range(n)]
    loads = [0.0] * n
    for group in heaviest_first:
        lightest = loads.index(min(loads))
        parts[lightest] += group
        loads[lightest] += sum(weights[i] for i in group)
    return parts


def _attempt(compute: Callable[[], Any]) -> tuple[Any, str | None]:
    """The result and no message, or no result and the message of a DataError."""
    try:
        return compute(), None
    except DataError as error:
        return None, str(error)


def _result(answers: Sequence[tuple[Any, str | None]]) -> list[Any]:
    for _, message in answers:
        if message is not None:
            raise DataError(message)
    return [value for value, _ in answers]
