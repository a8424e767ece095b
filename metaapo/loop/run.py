"""The run directory: the files and provenance of one training run, and resuming from finished iterations.

    runs/{method}/budget{budget}/seed{seed}/
        iter1/ iter2/ ...   finished iterations: model/ train.jsonl annotations.jsonl probes.jsonl summary.json, and
                            stages/ if hardware.keep_stages is set
        run.json            written last: configuration, code, data, packages, totals

An iteration is written to a hidden folder and renamed when it is complete, so a killed run resumes after its last
finished iteration. Every random stream is seeded by (run seed, iteration, purpose), so resuming changes no results.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from metaapo.data import read_json, sha256_file, write_json, write_text
from metaapo.experiment import Experiment, Run
from metaapo.loop.ledger import run_totals
from metaapo.method import module_of
from metaapo.provenance import code_hash, git_commit, machine, package_versions

A = TypeVar("A")


def modules_of(method: str, experiment: Experiment) -> tuple[str, str]:
    """The modules whose code, including imports, is run when a method is trained."""
    return "metaapo.train", module_of(method, experiment.methods[method])


@dataclass(frozen=True)
class RunContext:
    """One training run: what to train and where its files are."""

    experiment: Experiment
    run: Run

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.experiment.run_path(self.run)

    @property
    def world(self) -> Path:
        """The folder of the run's world: data/, sft/, reward_model/."""
        return self.experiment.world_path(self.experiment.world_of(self.run.seed))

    @property
    def pairs(self) -> Path:
        """The world's offline preference pairs, all iterations."""
        return self.world / "data" / "pairs.jsonl"

    @property
    def sft(self) -> Path:
        """The world's SFT policy."""
        return self.world / "sft"

    @property
    def reward_model(self) -> Path:
        """The world's reward model."""
        return self.world / "reward_model"

    def iteration_path(self, iteration: int) -> Path:
        """The folder of a finished iteration, counted from 1."""
        return self.path / f"iter{iteration}"

    def stages_path(self, iteration: int) -> Path:
        """The folder of an unfinished iteration's stages (metaapo.loop.kept)."""
        return self.path / f".iter{iteration}.stages"

    def other(self, method: str) -> RunContext:
        """Another method's run with the same seed, at the same budget unless a budget means nothing to the method."""
        return RunContext(self.experiment, self.experiment.beside(self.run, method))

    def summaries_of(self, method: str) -> list[dict[str, Any]]:
        """Per-iteration summaries of the finished run `other(method)`."""
        return read_json(self.other(method).path / "run.json")["iterations"]

    def start_path(self, iteration: int) -> Path:
        """The policy that an iteration starts from."""
        if iteration > 1:
            return self.iteration_path(iteration - 1) / "model"
        start = self.experiment.train_of(self.run.method).start
        if start == "sft":
            return self.sft
        return self.other(start).iteration_path(self.experiment.iterations) / "model"

    def reference_path(self, iteration: int) -> Path:
        """The reference of an iteration, by the setting `train.reference`."""
        kind = self.experiment.train_of(self.run.method).reference
        if kind == "moving":
            return self.start_path(iteration)
        if kind == "lagged" and iteration > 1:
            return self.start_path(iteration - 1)
        return self.sft

    def rng(self, iteration: int, purpose: str) -> np.random.Generator:
        """Create a separate random stream for each iteration and purpose, such as "select"."""
        return np.random.default_rng([self.run.seed, iteration, zlib.crc32(purpose.encode())])

    def torch_seed(self, iteration: int, purpose: str) -> int:
        """A seed for torch generators, derived like `rng`."""
        return int(self.rng(iteration, purpose).integers(2**63))

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of what the run reads: data, SFT policy, reward model."""
        files = [self.pairs]
        for model in (self.sft, self.reward_model):
            files += sorted(model.glob("*.safetensors"))
        return {str(file.relative_to(self.world)): sha256_file(file) for file in files}

    def code_hash(self) -> str:
        """SHA-256 of the code that the run depends on."""
        return code_hash(*modules_of(self.run.method, self.experiment))


class Coordinator(Protocol):
    """What a run directory needs to know about the processes that share it."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        ...

    def wait(self) -> None:
        """Wait until all processes are here."""
        ...

    def from_main(self, compute: Callable[[], A]) -> A:
        """What the main process computes."""
        ...


class SingleProcess:
    """The only process of a run (for several, see metaapo.loop.processes.Processes)."""

    is_main = True

    def wait(self) -> None:
        """There is nothing to wait for."""

    def from_main(self, compute: Callable[[], A]) -> A:
        """What this process computes."""
        return compute()


def _stamp(context: RunContext, data: dict[str, str]) -> str:
    """Hash everything an iteration's result depends on; a finished iteration is only reused if its stamp matches."""
    parts = [context.experiment.run_config(context.run), data, context.code_hash()]
    parts += [context.summaries_of(other.method) for other in context.experiment.needs(context.run)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _open_stages(context: RunContext, iteration: int, stamp: str) -> None:
    """Keep the stages of this iteration if they belong to the same run, and none of a later one, which will start from
    other weights.
    """
    for later in range(iteration, context.experiment.iterations + 1):
        folder = context.stages_path(later)
        note = folder / "stamp"
        if later > iteration or not note.is_file() or note.read_text(encoding="utf-8") != stamp:
            shutil.rmtree(folder, ignore_errors=True)
    if context.experiment.hardware.keep_stages:
        write_text(context.stages_path(iteration) / "stamp", stamp)


def _is_finished(folder: Path, stamp: str) -> bool:
    summary = folder / "summary.json"
    return summary.is_file() and read_json(summary)["stamp"] == stamp


def run_iterations(
    context: RunContext, iterate: Callable[[int, Path], dict[str, Any]], processes: Coordinator | None = None
) -> None:
    """Run all unfinished iterations, then write run.json.

    Args:
        context: the run.
        iterate: trains one iteration, given its number and an empty folder to write into (model/, train.jsonl,
            annotations.jsonl, ...); returns the iteration's summary.
        processes: the processes that train together; only the main one writes. None: a single process.
    """
    processes = processes or SingleProcess()
    data = processes.from_main(context.data_hashes)
    stamp = _stamp(context, data)
    summaries = []
    reuse = True
    for iteration in range(1, context.experiment.iterations + 1):
        final = context.iteration_path(iteration)
        reuse = processes.from_main(lambda: reuse and _is_finished(final, stamp))  # noqa: B023 - called at once
        if not reuse:
            partial = context.path / f".iter{iteration}.partial"
            if processes.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                _open_stages(context, iteration, stamp)
            processes.wait()
            summary = iterate(iteration, partial)
            if processes.is_main:
                write_json(partial / "summary.json", {"iteration": iteration, "stamp": stamp, **summary})
                if context.stages_path(iteration).is_dir():
                    context.stages_path(iteration).rename(partial / "stages")
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
            processes.wait()
        else:
            print(f"{context.run.id}: reusing finished iteration {iteration}", file=sys.stderr)
        summaries.append(read_json(final / "summary.json"))
    if not processes.is_main:
        return
    write_json(
        context.path / "run.json",
        {
            **context.experiment.run_config(context.run),
            "config": context.experiment.dump(),
            "commit": git_commit(),
            "code_sha256": context.code_hash(),
            "packages": package_versions(),
            "machine": machine(),
            "data": data,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "iterations": summaries,
            "totals": asdict(run_totals(summaries)),
            "seconds": round(sum(sum(summary["seconds"].values()) for summary in summaries), 3),
        },
    )
