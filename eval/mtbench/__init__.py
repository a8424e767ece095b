"""MT-Bench: grades from 1 to 10, two turns per question."""

from eval.benchmark import Benchmark, Column

BENCHMARK = Benchmark(
    title="MT-Bench",
    extension="jsonl",
    pairwise=False,
    scale=(1.0, 10.0),
    unit="grade",
    item_scale=1.0,
    margin=0.1,
    digits=2,
    raw_metric="average",
    columns=(Column("average", "", "mean grade"),),
    official_size=80,
    turns=2,
    world_questions="two_turn",
    judge_settings=("mtbench_references",),
)
