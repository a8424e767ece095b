"""A judge's raw answers and the ledger of what they cost, in one SQLite file.

An answer is stored under the hash of what was asked, in the same transaction as its line in the ledger, before
anything is made of it: a run that is killed asks only what is not stored yet. API keys are no part of a request and
never stored.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaapo.data import DataError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    dollars REAL NOT NULL, unsure_dollars REAL NOT NULL
);
"""
_BATCH = 500  # keys in one query; SQLite allows 32,766 since 3.32


@dataclass(frozen=True)
class Cost:
    """What one try cost.

    Attributes:
        prompt_tokens: as the endpoint counted them; 0 for a try without an answer.
        completion_tokens: likewise.
        dollars: by the judge's price.
        unsure_dollars: the most that a try without an answer can have cost (it may have been answered and lost).
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unsure_dollars: float = 0.0


def key_of(body: Mapping[str, Any]) -> str:
    """The content hash of a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class Store:
    """One judge's answers and ledger."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")  # an answer costs more than a sync
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path}: cannot be used ({error}); expected a judge's store (SQLite): move it away to start a new one"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """The stored answers among these keys."""
        found = {}
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            rows = self._connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", batch)
            found.update((key, json.loads(answer)) for key, answer in rows)
        return found

    def add(self, key: str, body: Mapping[str, Any], answer: Any, cost: Cost) -> None:
        """Store an answer and its cost, both or neither."""
        texts = [json.dumps(value) for value in (body, answer)]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, *texts))
            self._note(key, "answered", cost)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def note_failure(self, key: str, outcome: str, cost: Cost) -> None:
        """Note a try without an answer, such as "429" or "timeout"."""
        self._note(key, outcome, cost)

    def _note(self, key: str, outcome: str, cost: Cost) -> None:
        values = (cost.prompt_tokens, cost.completion_tokens, cost.dollars, cost.unsure_dollars)
        self._connection.execute(
            "INSERT INTO ledger (at, key, outcome, prompt_tokens, completion_tokens, dollars, unsure_dollars)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time.time(), key, outcome, *values),
        )

    def ledger(self) -> dict[str, Any]:
        """What was spent so far: {answered, failed: {outcome: tries}, prompt_tokens, completion_tokens, dollars,
        unsure_dollars}.
        """
        tries = dict(self._connection.execute("SELECT outcome, COUNT(*) FROM ledger GROUP BY outcome ORDER BY outcome"))
        columns = ("prompt_tokens", "completion_tokens", "dollars", "unsure_dollars")
        sums = self._connection.execute(
            f"SELECT {', '.join(f'COALESCE(SUM({column}), 0)' for column in columns)} FROM ledger"
        ).fetchone()
        return {"answered": tries.pop("answered", 0), "failed": tries, **dict(zip(columns, sums))}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One asking process a judge, so that the cap holds and nothing is asked by two at once; others wait."""
        with open(self.path.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{self.path}: another process is asking this judge; waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
