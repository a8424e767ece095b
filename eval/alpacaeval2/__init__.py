"""AlpacaEval 2: win rates against a baseline, length-controlled."""

from eval.benchmark import Benchmark, Column

BENCHMARK = Benchmark(
    title="AlpacaEval 2",
    extension="json",  # alpaca_eval's tools read and write one list
    pairwise=True,
    scale=(0.0, 100.0),
    unit="points",
    item_scale=100.0,
    margin=1.0,
    digits=1,
    raw_metric="win_rate",
    columns=(
        Column("length_controlled_winrate", "LC", "length-controlled win rate"),
        Column("win_rate", "WR", "raw win rate"),
    ),
    official_size=805,
    world_questions="mixed",
    world_baseline="sft",
    score_settings=("alpacaeval2_difficulty", "alpacaeval2_gamed"),
)
