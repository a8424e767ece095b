"""List the benchmarks and read the values that the cost estimate needs from the folders of eval/.

Nothing is imported from eval/, so that training does not depend on evaluation.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any

from metaapo import PROJECT

# The kinds of the tiny world's questions, and their user turns.
WORLD_KINDS = {"mixed": 1, "composed": 1, "two_turn": 2}


def known_benchmarks() -> list[str]:
    """Return the sorted names of all benchmarks: the folders of eval/ whose `__init__.py` assigns BENCHMARK."""
    files = sorted((PROJECT / "eval").glob("*/__init__.py"))
    return [file.parent.name for file in files if _declaration(file.parent.name) is not None]


def declared(benchmark: str, key: str, default: Any = None) -> Any:
    """Return one value of a benchmark's declaration, such as its `official_size`.

    Args:
        benchmark: a name from `known_benchmarks`.
        key: a field of `eval.benchmark.Benchmark` that the declaration sets to a literal.
        default: returned if the declaration omits the field.
    """
    found = (_declaration(benchmark) or {}).get(key)
    return default if found is None else ast.literal_eval(found)


def world_kinds(benchmark: str) -> list[str]:
    """Return the kinds of the tiny world's questions that a benchmark uses."""
    kind = declared(benchmark, "world_questions")
    return list(WORLD_KINDS) if kind == "all" else [kind]


@lru_cache(maxsize=64)
def _declaration(benchmark: str) -> dict[str, ast.expr] | None:
    """Return the arguments in `BENCHMARK = Benchmark(...)`, or None if the folder declares no benchmark."""
    text = (PROJECT / "eval" / benchmark / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if named and node.targets[0].id == "BENCHMARK" and isinstance(node.value, ast.Call):
            return {argument.arg: argument.value for argument in node.value.keywords if argument.arg}
    return None
