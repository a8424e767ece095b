"""Score published annotations and print our numbers beside the published ones.

    python -m eval.verify                              fetch the annotations at pinned commits, check their hashes
    python -m eval.verify --data ../shared/evaldata    use files that are already there

Exit status: 0 if all numbers agree, 1 if one differs, 2 if files are missing or unreadable. tests/evaldata.py describes
the folder that --data names.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from tabulate import tabulate

from eval.published import Comparison, PublishedFiles, cache_folder
from metaapo.benchmarks import known_benchmarks
from metaapo.data import DataError
from metaapo.doors import command_line

COLUMNS = ("benchmark", "model", "metric", "published", "ours", "")
ALIGNMENT = ("left", "left", "left", "right", "right", "left")


def published_modules() -> dict[str, ModuleType]:
    """The benchmarks with published numbers, and the modules that hold them."""
    names = {name: f"eval.{name}.published" for name in known_benchmarks()}
    return {name: importlib.import_module(module) for name, module in names.items() if importlib.util.find_spec(module)}


def verify(files: PublishedFiles) -> dict[str, list[Comparison]]:
    """Compare all published numbers with ours, by benchmark; raises DataError if a file is missing or unreadable."""
    return {name: module.comparisons(files) for name, module in published_modules().items()}


def table(found: dict[str, list[Comparison]]) -> str:
    """Format the comparisons as text, one number per line, with a summary."""
    rows = [
        (name, c.model, c.metric, _digits(c.published), _digits(c.ours), "" if c.agrees else "DIFFERS")
        for name, comparisons in found.items()
        for c in comparisons
    ]
    columns = tabulate(rows, COLUMNS, "plain", disable_numparse=True, colalign=ALIGNMENT)
    numbers = [c for comparisons in found.values() for c in comparisons]
    wrong = sum(not c.agrees for c in numbers)
    return f"{columns}\n{len(numbers) - wrong} of {len(numbers)} published numbers reproduced"


def _digits(value: float | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def record(found: dict[str, list[Comparison]]) -> dict[str, Any]:
    """The comparisons as a JSON object."""
    rows = [{"benchmark": name} | asdict(c) | {"agrees": c.agrees} for name, cs in found.items() for c in cs]
    return {"agree": all(row["agrees"] for row in rows), "n": len(rows), "comparisons": rows}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--data", type=Path, help="folder of published files; nothing is fetched")
    parser.add_argument(
        "--cache", type=Path, help="without --data: folder for fetched files; default: ~/.cache/metaapo/published"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print all comparisons. Returns the exit status: 0 if all agree, 1 if one differs, 2 for missing files."""
    files = PublishedFiles(arguments.data or arguments.cache or cache_folder(), fetch=arguments.data is None)
    try:
        found = verify(files)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = record(found)
    print(json.dumps(result, indent=2) if arguments.json else table(found))
    return 0 if result["agree"] else 1


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
