"""Pooled: the primary endpoint of small worlds, all held-out questions answered by sampling, against the SFT policy."""

from eval.benchmark import Benchmark, Column

BENCHMARK = Benchmark(
    title="Pooled questions",
    extension="jsonl",
    pairwise=True,
    primary=True,
    scale=(0.0, 100.0),
    unit="points",
    item_scale=100.0,
    margin=1.0,
    digits=1,
    raw_metric="win_rate",
    columns=(Column("win_rate", "", "win rate"),),
    official_size=0,
    world_questions="all",
    world_baseline="sft",
)
