"""Published numbers of MT-Bench: three averages of one paper, and where the judgments behind them are.

Source: the README of github.com/jxiw/MambaInLlama, commit 60d64dc66a9e72cf70167329ed4a4eaee1504d02; judge GPT-4.
"""

from __future__ import annotations

from eval.mtbench.score import score
from eval.published import Comparison, PublishedFiles, Source

AVERAGES = {
    "mamba_0_5_dpo_ep3": 7.31,
    "mamba_0_75_dpo_ep1": 7.03,
    "mamba_0_875_dpo_ep3": 6.37,
}
JUDGMENTS = Source(
    "mt_bench/model_judgment/mamba_in_llama_gpt-4_single.jsonl",
    "https://raw.githubusercontent.com/jxiw/FastChat/baaf3d3af3d1b865958c869a89f6f7fa189b9f93"
    "/fastchat/llm_judge/data/mt_bench/model_judgment/gpt-4_single.jsonl",
    "fd3c88f647ecd26da05386e6d21b1757dfd3b75e3dac340a8d6d1ef4acad584a",
    ("mt_bench/model_judgment/mamba_in_llama_gpt-4_single.jsonl.gz",),
)


def comparisons(files: PublishedFiles) -> list[Comparison]:
    """Score the published judgments. Raises DataError if a file is missing or not as expected."""
    rows = [row for row in files.records(JUDGMENTS) if row.get("model") in AVERAGES]
    ours = {m["model"]: m["average"] for m in score(rows)["models"]}
    return [Comparison(model, "average", value, ours.get(model), 0.005) for model, value in AVERAGES.items()]
