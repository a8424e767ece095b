"""The reference's log-probabilities of the offline pairs: the same in every run of a world, so they are kept beside it.

    world{seed}/reference_logps/iter{t}-{key}.json      {"chosen": [...], "rejected": [...]}, in the order of the part

The key is a hash of everything that the numbers depend on, so a file is never out of date: another world, reference,
setting or version of the code asks for another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from metaapo.data import read_json, sha256_file, write_json
from metaapo.loop.workbench import Workbench
from metaapo.provenance import code_hash

Sides = tuple[Tensor, ...]


def kept_with_world(bench: Workbench, iteration: int, compute: Callable[[], Sides]) -> Sides:
    """Read the log-probabilities, or compute and keep them.

    A reference that is a checkpoint of the run itself (`train.reference` moving or lagged) is no other run's, and is
    computed without being kept.

    Args:
        bench: of the run.
        iteration: whose part is scored.
        compute: the log-probabilities of chosen and rejected responses, float32 (n,) each.
    """
    reference = bench.context.reference_path(iteration)
    if reference.is_relative_to(bench.context.path):
        return compute()
    path = bench.processes.from_main(lambda: _path(bench, iteration, reference))
    if (kept := bench.processes.from_main(lambda: read_json(path) if path.is_file() else None)) is not None:
        return torch.tensor(kept["chosen"]), torch.tensor(kept["rejected"])
    chosen, rejected = compute()
    if bench.processes.is_main:  # written whole or not at all, so two runs may do this at the same time
        write_json(path, {"chosen": chosen.tolist(), "rejected": rejected.tolist()})
    return chosen, rejected


def _path(bench: Workbench, iteration: int, reference: Path) -> Path:
    parts = [
        _hash(bench.context.pairs),
        {
            file.name: _hash(file)
            for pattern in ("*.safetensors", "*.json", "*.jinja")
            for file in reference.glob(pattern)
        },
        code_hash("metaapo.loop.offline", "metaapo.models.logps", "metaapo.models.load"),
        str(bench.policies.frozen_dtype),
        bench.scorer.batch_size,
        bench.processes.device.type,
        torch.__version__,
        [torch.backends.cpu.get_cpu_capability(), os.environ.get("MKL_CBWR")],  # as metaapo.arithmetic may pin them
    ]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return bench.context.world / "reference_logps" / f"iter{iteration}-{key}.json"


def _hash(file: Path) -> str:
    return _hash_of_version(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_of_version(file: Path, changed_ns: int) -> str:
    """Weights of gigabytes are hashed once per run instead of once per iteration."""
    return sha256_file(file)
