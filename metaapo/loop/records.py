"""Files that an iteration saves along with its policy: the log, the annotation ledger, the probes and the summary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaapo.data import write_jsonl
from metaapo.loop.ledger import totals
from metaapo.loop.probe import last_probe
from metaapo.loop.prompts import Prompt
from metaapo.loop.stages import Clock
from metaapo.loop.workbench import Workbench
from metaapo.models.generate import sampler_version


def write_records(
    bench: Workbench, folder: Path, prompts: list[Prompt], log: list[dict[str, Any]], probes: list[dict[str, Any]]
) -> None:
    """Write train.jsonl (one row per optimizer step), annotations.jsonl (per prompt) and probes.jsonl (per probe)."""
    if not bench.processes.is_main:
        return
    write_jsonl(folder / "train.jsonl", log)
    write_jsonl(folder / "annotations.jsonl", [prompt.ledger.record() for prompt in prompts])
    write_jsonl(folder / "probes.jsonl", probes)


def summary(bench: Workbench, prompts: list[Prompt], probes: list[dict[str, Any]], clock: Clock) -> dict[str, Any]:
    """Summarise the iteration; annotation_ratio is relative to the experiment's K responses for every prompt."""
    spent = totals([prompt.ledger for prompt in prompts])
    return {
        **asdict(spent),
        "annotation_ratio": spent.annotation_ratio(bench.context.experiment.sampling.k),
        **last_probe(probes),
        "seconds": clock.seconds,
        "loads": dict(bench.policies.loads),
        "processes": bench.processes.n,
        "sampler": sampler_version(bench.sampling),
    }
