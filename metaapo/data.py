"""The records on disk: JSON and JSONL files, plain or gzipped, read with clear errors and written atomically.

Nothing here imports torch, so that every rule that only reads or writes files starts in milliseconds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict


class Message(TypedDict):
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class DataError(ValueError):
    """A file or record is not what was expected; the message names the place and the way out."""


def _read_text(path: str | Path) -> str:
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path}: no such file; it should be written by an earlier step, or check the path in the config"
        )
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it so that it is made again") from error


def read_json(path: str | Path) -> Any:
    """Read one JSON document, plain or gzipped.

    Raises:
        DataError: the file is missing, truncated or not JSON.
    """
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); expected one JSON document") from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read one JSON object a line, plain or gzipped; blank lines are skipped.

    Lines end at "\\n" only: real answers hold other Unicode line separators.

    Raises:
        DataError: the file is missing or truncated, or a line is not a JSON object (file and line are named).
    """
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not valid JSON ({error.msg}); expected one JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read a list of records from a JSON list or from JSONL, either plain or gzipped.

    Raises:
        DataError: neither a JSON list of objects nor JSONL.
    """
    if _read_text(path).lstrip()[:1] != "[":
        return read_jsonl(path)
    rows = read_json(path)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: item {number} is {type(row).__name__}; expected a list of JSON objects")
    return rows


def require_keys(row: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Check that a record has the keys that its reader needs.

    Args:
        row: the record.
        keys: names that must be present.
        where: the record's place, such as "pairs.jsonl:12", for the message.

    Raises:
        DataError: a key is missing.
    """
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{where}: key {missing[0]!r} is missing; found {sorted(row)}")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: str | Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | Path, document: Any) -> None:
    """Write one JSON document atomically; NaN and infinity are refused, since JSON has neither.

    Raises:
        ValueError: the document holds NaN or infinity.
    """
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically, gzipped (reproducibly) where the name ends in .gz."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    content = text.encode("utf-8")
    write_bytes(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_row(name: str, value: float, low: float | None, high: float | None, unit: str, note: str) -> dict[str, Any]:
    """One row of a health table; a bound of None does not bind."""
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
