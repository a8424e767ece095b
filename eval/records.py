"""Checks on a scorer's input records: texts are texts, numbers are finite, nothing appears twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from metaapo.data import DataError, require_keys

Record = Mapping[str, Any]


def require_text(row: Record, key: str, where: str, null: bool = False) -> None:
    """Check that a key holds a text, or null if `null` is set.

    Raises:
        DataError: it is missing or holds something else.
    """
    require_keys(row, (key,), where)
    value = row[key]
    if not isinstance(value, str) and not (null and value is None):
        raise DataError(f"{where}: {key} is {shown(value)}; expected a text{' or null' if null else ''}")


def require_id(row: Record, key: str, where: str) -> None:
    """Check that a key holds an identifier: a text or a whole number.

    Raises:
        DataError: it is missing or holds something else.
    """
    require_keys(row, (key,), where)
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: {key} is {shown(value)}; expected a text or a whole number")


def require_count(value: Any, what: str, where: str) -> None:
    """Check that a value is a count: a finite number of 0 or more, not a boolean.

    Raises:
        DataError: it is something else.
    """
    if not is_number(value) or not 0 <= value < math.inf:
        raise DataError(f"{where}: {what} is {shown(value)}; expected a number of 0 or more")


def is_number(value: Any) -> bool:
    """Whether a value is a usable number: not a boolean and within the range of a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 10**300


def turns_of(answer: Record, where: str) -> Sequence[Any]:
    """The turns of FastChat's answer record.

    Raises:
        DataError: it has no choice with a list of turns.
    """
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    turns = first.get("turns") if isinstance(first, dict) else None
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: choices is {shown(choices)}; expected a list with {{turns: [text, ...]}}")
    return turns


def refuse_copies(rows: Iterable[Record], what: str) -> None:
    """Check that no record is a copy of another.

    Raises:
        DataError: one is; the message names both.
    """
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        content = json.dumps(row, sort_keys=True)
        if content in seen:
            raise DataError(f"{what}: record {number} is a copy of record {seen[content]}; remove it, since it counts")
        seen[content] = number


def refuse_repeats(keys: Iterable[Hashable], what: str) -> None:
    """Check that nothing appears twice, since it would count twice.

    Raises:
        DataError: a key appears twice; the message names both records.
    """
    seen: dict[Hashable, int] = {}
    for number, key in enumerate(keys, start=1):
        if key in seen:
            raise DataError(
                f"{what}, records {seen[key]} and {number}: both are about {shown(key)}; remove one, since each would "
                "count"
            )
        seen[key] = number


def listed(names: Iterable[str]) -> str:
    """Names for an error message, each and all of them truncated."""
    text = ", ".join(name if len(name) <= 80 else name[:77] + "..." for name in names)
    return text if len(text) <= 200 else text[:197] + "..."


def shown(value: Any) -> str:
    """A value for an error message, truncated to one line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or an integer too long to print
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:77] + "..."


def score_digest(document: Mapping[str, Any], items: bytes) -> str:
    """SHA-256 of a score file (scores/BENCHMARK/JUDGE.json without its key `sha256`) and of the items beside it."""
    return hashlib.sha256(json.dumps(document).encode() + items).hexdigest()
