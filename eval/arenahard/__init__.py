"""Arena-Hard: five-level verdicts in two games, style-controlled."""

from eval.benchmark import Benchmark, Column

BENCHMARK = Benchmark(
    title="Arena-Hard",
    extension="jsonl",
    pairwise=True,
    scale=(0.0, 100.0),
    unit="points",
    item_scale=100.0,
    margin=1.0,
    digits=1,
    raw_metric="win_rate",
    columns=(
        Column("style_controlled_win_rate", "SC", "style-controlled win rate"),
        Column("win_rate", "WR", "raw win rate"),
    ),
    official_size=500,
    versioned_by="arenahard_version",
    official_sizes={"v2.0-2025": 750},
    judge_calls=2,
    world_questions="composed",
    world_baseline="world",
    answer_settings=("arenahard_version",),
    judge_settings=("arenahard_version",),
    score_settings=("arenahard_version",),
)
