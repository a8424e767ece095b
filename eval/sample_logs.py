"""Compare two models question by question, from the logs of any supported evaluation tool.

    python -m eval.sample_logs --a logs/one.json --b logs/other.eval [--metric accuracy] [--out F]

Reads the per-sample logs of other harnesses and detects their format:

| file | written by | a sample's id | its value |
| --- | --- | --- | --- |
| `*.json`, `*.eval` | inspect_ai | `id`; epochs are averaged | `scores`: numbers; C, I, P, N as 1, 0, 0.5, 0 |
| `samples_*.jsonl` | lm-evaluation-harness (`--log_samples`) | `doc_id` | the row's own metrics |
| `*_samples.jsonl` | Every Eval Ever | `sample_id` | `evaluation.score`, by `evaluation_result_id` or name |
| `*.items.csv.gz` | this project (`eval.score`); needs `--a-model` | `question` | `value` |

Only questions in both files are compared, in pairs, so that a hard question affects both models.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from eval.rank_agreement import read_items
from eval.records import is_number, require_id, shown
from eval.stats import paired_bootstrap
from metaapo.data import DataError, read_json, read_records, require_keys, write_json
from metaapo.doors import command_line

# sample id -> value, for each metric of a log
Samples = dict[str, dict[str, float]]
INSPECT_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # inspect_ai.scorer: correct, incorrect, partial, no answer
MAX_UNPACKED = 1 << 30  # bytes of the samples in an .eval archive
# Fields of an lm-eval sample that are numbers but not metrics (lm_eval/evaluator.py)
LM_EVAL_FIELDS = {"doc_id", "filter", "metrics", "arguments", "resps", "filtered_resps", "target", "doc"}


def read_samples(path: str | Path, model: str = "") -> Samples:
    """The values of a log's samples, by metric.

    Args:
        path: a file of one of the kinds in the module's docstring.
        model: method/budget/seed/iteration, for a file of this project that holds several models.

    Raises:
        DataError: the file cannot be read, has an unknown format, or has no values.
    """
    path = Path(path)
    if path.name.endswith(".items.csv.gz"):
        return {"value": _own_items(path, model)}
    if path.suffix == ".eval":
        samples = _inspect_samples(_unzip_inspect(path), str(path))
    elif path.suffix == ".json":
        document = read_json(path)
        if not isinstance(document, dict) or "eval" not in document:
            raise DataError(f"{path}: not a log of inspect_ai (no key 'eval'); expected one, or samples as JSONL")
        samples = _inspect_samples(document.get("samples") or [], str(path))
    else:
        rows = read_records(path)
        read = _exchange_samples if rows and "sample_id" in rows[0] else _lm_eval_samples
        samples = read(rows, str(path))
    if not samples:
        raise DataError(f"{path}: no sample values found; log samples when you evaluate, and score them")
    return samples


def _own_items(path: Path, model: str) -> dict[str, float]:
    table = {"/".join(key): values for key, values in read_items(path).items()}
    if model not in table:
        known = ", ".join(sorted(table)[:5])
        raise DataError(f"{path}: no model {model!r}; name one of method/budget/seed/iteration, such as {known}")
    return dict(table[model])


def _unzip_inspect(path: Path) -> list[dict[str, Any]]:
    """The samples in an .eval archive: one JSON file each under samples/."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.startswith("samples/") and not m.is_dir()]
            unpacked = sum(member.file_size for member in members)
            if unpacked > MAX_UNPACKED:
                raise DataError(f"{path}: unpacks to {unpacked} bytes, more than {MAX_UNPACKED}; is it a log?")
            return [json.loads(archive.read(member)) for member in members]
    except NotImplementedError as error:  # zstd, which Python's zipfile reads from 3.14 on
        raise DataError(
            f"{path}: its compression cannot be read here; convert it with `inspect log convert --to json`"
        ) from error
    except (OSError, zipfile.BadZipFile, zlib.error, RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error}); expected an .eval log of inspect_ai") from error


def _inspect_samples(rows: list[Any], where: str) -> Samples:
    found: dict[str, dict[str, list[float]]] = {}
    for number, row in enumerate(_checked(rows, where, "sample"), start=1):
        require_id(row, "id", f"{where}, sample {number}")
        scores = row.get("scores") or {}
        if not isinstance(scores, dict):
            raise DataError(f"{where}, sample {number}: scores is {shown(scores)}; expected scorer -> score")
        for scorer, score in scores.items():
            value = score.get("value") if isinstance(score, dict) else None
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for part, single in parts:
                if (number_of := _inspect_value(single)) is not None:
                    name = f"{scorer}.{part}" if part else scorer
                    found.setdefault(name, {}).setdefault(str(row["id"]), []).append(number_of)
    return {name: {key: float(np.mean(v)) for key, v in samples.items()} for name, samples in found.items()}


def _inspect_value(value: Any) -> float | None:
    if isinstance(value, str):
        return INSPECT_LETTERS.get(value)
    return _number(value)


def _lm_eval_samples(rows: list[dict[str, Any]], where: str) -> Samples:
    found: Samples = {}
    filters = {str(row.get("filter", "none")) for row in _checked(rows, where, "record")}
    for number, row in enumerate(rows, start=1):
        require_id(row, "doc_id", f"{where}, record {number}")
        names = row.get("metrics") or [key for key in row if key not in LM_EVAL_FIELDS]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where}, record {number}: metrics is {shown(names)}; expected a list of names")
        for name in dict.fromkeys(names):
            if (value := _number(row.get(name))) is not None:
                metric = f"{name},{row.get('filter', 'none')}" if len(filters) > 1 else name
                _add(found, metric, str(row["doc_id"]), value, f"{where}, record {number}")
    return found


def _exchange_samples(rows: list[dict[str, Any]], where: str) -> Samples:
    found: Samples = {}
    for number, row in enumerate(_checked(rows, where, "record"), start=1):
        here = f"{where}, record {number}"
        require_keys(row, ("evaluation_name", "evaluation"), here)
        require_id(row, "sample_id", here)
        if not isinstance(row["evaluation"], dict):
            raise DataError(f"{here}: evaluation is {shown(row['evaluation'])}; expected a mapping with a score")
        value = _number(row["evaluation"].get("score"))
        if value is not None and not row.get("error"):
            name = str(row.get("evaluation_result_id") or row["evaluation_name"]).rpartition("#")[2]
            _add(found, name, str(row["sample_id"]), value, here)
    return found


def _checked(rows: Any, where: str, what: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise DataError(f"{where}: the {what}s are {shown(rows)}; expected a list")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{where}, {what} {number}: {shown(row)}; expected a mapping")
    return rows


def _add(found: Samples, metric: str, sample: str, value: float, where: str) -> None:
    """Note a value; another one for the same sample would silently replace it."""
    if found.setdefault(metric, {}).setdefault(sample, value) != value:
        raise DataError(f"{where}: sample {shown(sample)} has two values of {shown(metric)}; give one run's samples")


def _number(value: Any) -> float | None:
    """A finite number or a boolean; None for anything else."""
    if isinstance(value, bool) or (is_number(value) and math.isfinite(value)):
        return float(value)
    return None


def compare(a: Samples, b: Samples, metric: str = "") -> dict[str, Any]:
    """The paired difference a - b over the samples in both logs.

    Args:
        a: one log, from `read_samples`.
        b: the other log.
        metric: its name; may be left out if the logs have exactly one in common.

    Returns:
        {metric, a, b (means over the common samples), difference, ci_low, ci_high, p_value, n, only_in_a, only_in_b}.

    Raises:
        DataError: unknown or ambiguous metric, or fewer than two samples in common.
    """
    common = sorted(a.keys() & b.keys())
    if not metric and len(common) == 1:
        (metric,) = common
    if metric not in common:
        raise DataError(
            f"metric {metric!r}: the logs have in common: {', '.join(common) or 'none'}; the first has "
            f"{', '.join(sorted(a))}, the second {', '.join(sorted(b))}; name one (--metric)"
        )
    questions = sorted(a[metric].keys() & b[metric].keys())
    if len(questions) < 2:
        raise DataError(
            f"metric {metric}: {len(questions)} samples in common (the first log has {len(a[metric])}, the second "
            f"{len(b[metric])}); compare logs of the same questions"
        )
    x, y = (np.array([samples[metric][question] for question in questions]) for samples in (a, b))
    estimate = paired_bootstrap(x, y)
    return {
        "metric": metric,
        "a": float(x.mean()),
        "b": float(y.mean()),
        "difference": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "p_value": estimate.p_value,
        "n": len(questions),
        "only_in_a": len(a[metric]) - len(questions),
        "only_in_b": len(b[metric]) - len(questions),
    }


def _same_metric(a: Samples, b: Samples) -> tuple[Samples, Samples]:
    """If each log has a single metric under a different name, compare on these."""
    if len(a) == len(b) == 1 and a.keys() != b.keys():
        name = f"{next(iter(a))} / {next(iter(b))}"
        return {name: next(iter(a.values()))}, {name: next(iter(b.values()))}
    return a, b


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--a", required=True, help="a log (see the module's docstring for its kinds)")
    parser.add_argument("--b", required=True, help="the other log")
    parser.add_argument("--a-model", default="", help="method/budget/seed/iteration, where --a holds several models")
    parser.add_argument("--b-model", default="", help="the same for --b")
    parser.add_argument("--metric", default="", help="default: the only one that the logs have in common")
    parser.add_argument("--out", help="also write the JSON object to this file")


def run(arguments: argparse.Namespace) -> None:
    """Compare two logs and print a JSON object."""
    try:
        a, b = read_samples(arguments.a, arguments.a_model), read_samples(arguments.b, arguments.b_model)
        if not arguments.metric:
            a, b = _same_metric(a, b)
        found = compare(a, b, arguments.metric)
        if arguments.out:
            write_json(arguments.out, found)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
