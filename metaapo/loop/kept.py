"""Stages of an iteration on disk: what was computed before training is kept, so that a crash repeats none of it.

    runs/{method}/budget{b}/seed{s}/.iter{t}.stages/     while the iteration runs
        stamp                             what the files depend on; another stamp empties the folder
        reference_logps.jsonl.gz          log-probabilities of the offline pairs under the reference, unless the world
                                          keeps them, and in offline_logps.jsonl.gz under the policy
        responses.jsonl.gz                the sampled responses, one line per sampled prompt
        rewards.jsonl.gz                  their rewards, and the offline pairs' where a method wants them
        online_logps.jsonl.gz             log-probabilities of the online pairs under the reference

Each file appears when it is complete. With `hardware.keep_stages` they are written, and they move to iter{t}/stages/
when the iteration is finished; without it nothing is written, which suits models that are sampled in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from metaapo.data import read_jsonl, write_jsonl
from metaapo.loop.processes import Processes
from metaapo.loop.run import RunContext

A = TypeVar("A")


class Kept:
    """The stages of one run's iterations."""

    def __init__(self, context: RunContext, processes: Processes) -> None:
        self.context, self.processes = context, processes
        self.is_on = context.experiment.hardware.keep_stages

    def once(
        self,
        iteration: int,
        stage: str,
        compute: Callable[[], A],
        rows_of: Callable[[A], Sequence[Any]],
        from_rows: Callable[[list[Any]], A],
    ) -> A:
        """What a stage computes, or computed before a crash; all processes must call this.

        Args:
            iteration: counted from 1.
            stage: its name, which becomes the file's.
            compute: the stage.
            rows_of: the result as plain data, one row per line; JSON keeps every bit of a float.
            from_rows: the result from these rows.
        """
        if not self.is_on:
            return compute()
        path = self._path(iteration, stage)
        if self.processes.from_main(path.is_file):
            return from_rows([line["row"] for line in read_jsonl(path)])
        result = compute()
        if self.processes.is_main:
            write_jsonl(path, ({"row": row} for row in rows_of(result)))
        self.processes.wait()
        return result

    def numbers(self, iteration: int, stage: str, compute: Callable[[], Sequence[Any]]) -> list[Any]:
        """`once` for a list of numbers, or of lists of numbers."""
        return self.once(iteration, stage, lambda: list(compute()), lambda rows: rows, lambda rows: rows)

    def _path(self, iteration: int, stage: str) -> Path:
        return self.context.stages_path(iteration) / f"{stage}.jsonl.gz"
