"""Families of related models: a judge tends to favour answers by its own family.

Source: Panickssery, Bowman & Feng, "LLM evaluators recognize and favor their own generations" (2024, arXiv 2404.13076);
Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena" (2023), section 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A model belongs to a family if its weights, or answers it was trained on, come from it. A name may indicate two.
FAMILIES = {
    "GPT": r"(chat)?gpt(?![a-z])|davinci|(?<![a-z0-9])o[134](?![a-z0-9])",
    "Claude": r"claude",
    "Gemini": r"gemini|gemma|palm(?![a-z])",
    "Llama": r"llama|vicuna|alpaca(?!eval)|tulu|koala(?![a-z])|guanaco",
    "Qwen": r"qwen|qwq(?![a-z])",
    "Mistral": r"mi[sx]tral|ministral|magistral|zephyr",
    "DeepSeek": r"deepseek",
    "SmolLM": r"smollm",
    "Phi": r"phi(?![a-z])",
    "OLMo": r"olmo",
    "Granite": r"granite",
    "GLM": r"(chat)?glm(?![a-z])",
    "Yi": r"yi(?![a-z])",
    "Command": r"command-[ra]|aya(?![a-z])",
    "Grok": r"grok",
}
_PATTERNS = {name: re.compile(rf"(?<![a-z])(?:{pattern})") for name, pattern in FAMILIES.items()}


def families_of(model: str) -> frozenset[str]:
    """The families indicated by a model's name; empty if there are none.

    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B" is both DeepSeek's and Qwen's.
    """
    return frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(model.lower()))


def family_warnings(judge: str, judge_model: str, models: Mapping[str, str]) -> list[str]:
    """One sentence for each model that the judge is related to.

    Args:
        judge: the judge's name, for the sentence.
        judge_model: its model; a panel's models in one string.
        models: role of each model that is judged -> its name, such as {"the policies": "Qwen/Qwen2.5-7B"}.
    """
    judge_families = families_of(judge_model)
    warnings = []
    for role, model in models.items():
        common = sorted(judge_families & families_of(model))
        if common:
            warnings.append(
                f"{judge} ({judge_model}) and {role} ({model}) belong to one family, {' and '.join(common)}: judges "
                "tend to favour their own family's answers; compare with a judge of another family."
            )
    return warnings
