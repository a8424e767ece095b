"""The records on disk: JSON and JSONL files, plain or gzipped, read with clear errors and written atomically.

Nothing here imports torch, so that every rule that only reads or writes files starts in milliseconds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import yaml


class Message(TypedDict):
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class DataError(ValueError):
    """A file or record is not what was expected; the message says where and how to fix it."""


_LONGEST_INTEGER = 300  # digits; no longer number is meaningful here
_SURROGATES = re.compile("[\ud800-\udfff]")


def _read_text(path: str | Path) -> str:
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path}: no such file; it should be written by an earlier step, or check the path in the config"
        )
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it so that it is made again") from error


def parse_json(text: str, where: str, expected: str, strict: bool = False) -> Any:
    """JSON as plain data.

    Args:
        text: one document.
        where: the document's location, for error messages.
        expected: what the document should contain, for error messages.
        strict: reject infinite numbers, and replace lone surrogates, which UTF-8 cannot encode, with U+FFFD.

    Raises:
        DataError: not JSON, nested too deeply, or (strict) a number that is infinite.
    """
    try:
        document = json.loads(
            text, parse_int=_integer, **({"parse_constant": _constant, "parse_float": _finite} if strict else {})
        )
        return _without_surrogates(document) if strict and "\\u" in text else document
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error.msg}); expected {expected}") from error
    except RecursionError:
        raise DataError(f"{where}: nested too deeply; expected {expected}") from None
    except ValueError as error:
        raise DataError(f"{where}: {error}; expected {expected}") from error


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:40]} is infinite")
    return value


def _constant(name: str) -> float:
    if name != "NaN":  # pandas writes NaN for missing values
        raise ValueError(f"the number {name}")
    return float("nan")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def read_json(path: str | Path) -> Any:
    """Read one JSON document, plain or gzipped.

    Raises:
        DataError: the file is missing, truncated or not JSON.
    """
    return parse_json(_read_text(path), str(path), "one JSON document")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read one JSON object per line, plain or gzipped; blank lines are skipped.

    Lines end at "\\n" only, because real answers contain other Unicode line separators.

    Raises:
        DataError: the file is missing or truncated, or a line is not a JSON object (file and line are named).
    """
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}:{number}", "one JSON object per line", strict=True)
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read a list of records from a JSON list or from JSONL, either plain or gzipped.

    Raises:
        DataError: neither a JSON list of objects nor JSONL.
    """
    text = _read_text(path)
    if text.lstrip()[:1] != "[":
        return read_jsonl(path)
    rows = parse_json(text, str(path), "a list of JSON objects", strict=True)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: item {number} is {type(row).__name__}; expected a list of JSON objects")
    return rows


LARGEST_YAML = 1 << 20  # bytes; the largest configuration here has 10 KB
MOST_YAML_ITEMS = 100_000  # with every alias written out, which a few lines can make billions of


def read_yaml(path: str | Path, expected: str) -> Any:
    """Read a YAML document as plain data.

    Args:
        path: the file.
        expected: what it should be, for the message.

    Raises:
        DataError: the file is missing, not YAML, or larger than a configuration can be.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_YAML + 1)
        if len(raw) > LARGEST_YAML:
            raise DataError(f"{path}: larger than {LARGEST_YAML >> 20} MB; expected {expected}")
        document = yaml.safe_load(raw.decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = (str(error).splitlines() or ["nested too deeply"])[0]
        raise DataError(f"{path}: not valid YAML ({reason}); expected {expected}") from error
    refuse_expansion(document, str(path))
    return document


def refuse_expansion(document: Any, where: str) -> None:
    """Refuse plain data in which aliases stand for more than any configuration holds, or for themselves.

    Raises:
        DataError: naming the place.
    """
    if _items(document, {}) > MOST_YAML_ITEMS:
        raise DataError(f"{where}: its aliases stand for more than {MOST_YAML_ITEMS} values; write it without them")


def _items(value: Any, known: dict[int, float]) -> float:
    """Values in a document with every alias written out; infinite where one contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # while it is counted: who comes back here is in a circle
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_items(part, known) for part in parts)
    return known[id(value)]


def require_keys(row: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Check that a record has the keys that its reader needs.

    Args:
        row: the record.
        keys: names that must be present.
        where: the record's location, such as "pairs.jsonl:12", for error messages.

    Raises:
        DataError: a key is missing.
    """
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{where}: key {missing[0]!r} is missing; found {sorted(row)}")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old or the new content, never part of it."""
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DataError(f"{path}: not a regular file, and writing would replace it; choose another path or remove it")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); free some space or choose another path, then run again"
            ) from error
        raise


def write_text(path: str | Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def _dump(document: Any, indent: int | None = None) -> str:
    """Serialise as JSON, escaping lone surrogates, which UTF-8 cannot encode."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def write_json(path: str | Path, document: Any) -> None:
    """Write one JSON document atomically; NaN and infinity are errors, since JSON has neither.

    Raises:
        ValueError: the document holds NaN or infinity.
    """
    write_text(path, _dump(document, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, atomically; gzip reproducibly if the name ends in .gz."""
    text = "".join(_dump(row) + "\n" for row in rows)
    content = text.encode("utf-8")
    write_bytes(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_row(name: str, value: float, low: float | None, high: float | None, unit: str, note: str) -> dict[str, Any]:
    """Build one row of a health table; a bound of None is not checked."""
    ok = bool((low is None or value >= low) and (high is None or value <= high))
    return {
        "name": name,
        "value": round(float(value), 4),
        "low": low,
        "high": high,
        "ok": ok,
        "unit": unit,
        "note": note,
    }
