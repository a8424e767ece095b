"""A judge's raw answers and the ledger of what they cost, in one SQLite file.

Every request leaves a row "sent" in the ledger before it leaves the machine, with the most that it can cost. Its answer
and what it really cost replace that row's outcome in one transaction, before anything is made of the answer. A run that
is killed therefore asks only what is not stored yet, and what it had under way stays in the ledger as money that may
have been spent (`unsure_dollars`). API keys are no part of a request and never stored.

Answers are stored under the hash of endpoint and request. Those that could not be read are kept too, as evidence.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaapo.data import DataError

VERSION = 2  # of the schema, in SQLite's user_version
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL, model TEXT NOT NULL, times INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    counted_prompt_tokens INTEGER NOT NULL, counted_completion_tokens INTEGER NOT NULL,
    dollars REAL NOT NULL, unsure_dollars REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY, at REAL NOT NULL, remote TEXT NOT NULL, rows TEXT NOT NULL, done INTEGER NOT NULL
);
PRAGMA user_version = {VERSION};
"""
_TABLES = {"answers": "key", "ledger": "counted_prompt_tokens", "batches": "remote"}  # and a column of each
_KEYS_PER_QUERY = 500  # SQLite allows 32,766 since 3.32
# Set aside before money is spent, and given back to SQLite where the disk is full: answers under way still fit.
RESERVE = 1 << 20  # bytes
RESERVE_PER_REQUEST = 16 << 10  # bytes; a verdict of 4,000 tokens has about as many
SENT = "sent"
ANSWERED = "answered"
NOT_SENT = "not sent"  # announced, then held back


# File systems of this machine alone. On any other, SQLite's write-ahead log is unsafe: its index is shared memory.
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "apfs", "hfs", "vfat", "ramfs"}
MOUNTS = Path("/proc/mounts")

BatchRows = dict[str, tuple[int, Any]]  # key of a request -> its row in the ledger, and its body


@dataclass(frozen=True)
class Cost:
    """What one try cost.

    Attributes:
        prompt_tokens: as the endpoint counted them where that is credible, else as we do; 0 for a try without answer.
        completion_tokens: likewise.
        dollars: by the judge's price.
        unsure_dollars: what the endpoint may have billed beyond that, at most (a try without an answer may have been
            answered and lost; a count that is not credible may hide a larger one).
        counted_prompt_tokens: our own estimate, to hold beside the endpoint's.
        counted_completion_tokens: likewise.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unsure_dollars: float = 0.0
    counted_prompt_tokens: int = 0
    counted_completion_tokens: int = 0


@dataclass(frozen=True)
class Stored:
    """An answer on disk: the choice as the API gave it, the model that gave it, and how often it was asked for."""

    choice: dict[str, Any]
    model: str
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a request in the ledger ended; `stored` and `request`, its JSON, where it was answered."""

    row: int
    name: str
    cost: Cost
    key: str = ""
    request: str = ""
    stored: Stored | None = None


@dataclass(frozen=True)
class Intent:
    """A request that is about to be sent, and the most that it can cost."""

    key: str
    most_dollars: float


def key_of(endpoint: str, body: Mapping[str, Any]) -> str:
    """The content hash of a request to an endpoint: the same words to another endpoint are another request."""
    return hashlib.sha256(json.dumps([endpoint, body], sort_keys=True).encode()).hexdigest()


def journal_mode(path: Path, mounts: Path = MOUNTS) -> str:
    """SQLite's journal for a file: WAL, which is fast, or DELETE where another machine may open the file too.

    Args:
        path: the file, which need not exist.
        mounts: the mounted file systems, in the format of Linux's /proc/mounts; WAL if there is no such file.
    """
    if not mounts.is_file():
        return "WAL"
    place = path.resolve()
    rows = [line.split()[1:3] for line in mounts.read_text(encoding="utf-8").splitlines()]
    over = [(Path(point.replace("\\040", " ")), kind) for point, kind in rows]
    kinds = [kind for point, kind in sorted(over, key=lambda row: len(row[0].parts)) if place.is_relative_to(point)]
    return "WAL" if not kinds or kinds[-1] in LOCAL else "DELETE"


class Store:
    """One judge's answers and ledger."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it.

        Raises:
            DataError: the folder cannot be written, or the file is broken or something else's.
        """
        self.path = Path(path)
        self._is_full = False
        with self._explained("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes that make the file at once would each see half of the other's schema. The lock of
            # `exclusive` does not serve: it may be held for hours.
            with open(self.path.with_suffix(".opening"), "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
                self._check_schema()
                self._connection.execute(f"PRAGMA journal_mode={journal_mode(self.path)}")
                self._connection.execute("PRAGMA synchronous=FULL")  # an answer costs more than a sync
                if self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    self._connection.executescript(_SCHEMA)

    def _check_schema(self) -> None:
        faults = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)")]
        if faults != ["ok"]:
            raise sqlite3.DatabaseError(faults[0].replace("\n", " "))
        tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if not tables and version == 0:
            return  # new
        columns = {
            table: {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")} for table in tables
        }
        if version != VERSION or any(column not in columns[table] for table, column in _TABLES.items()):
            raise DataError(
                f"{self.path}: not a judge's store of this version (schema {version} with the tables "
                f"{', '.join(sorted(tables)) or 'none'}; expected schema {VERSION}); move it away to start a new one"
            )

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn what SQLite and the file system raise into one sentence that says what is lost: nothing."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = str(error).lower()
            if _is_full(error):
                hint = "the disk is full; free some space and run again: what is stored is kept"
            elif "readonly" in said or "unable to open" in said or isinstance(error, OSError):
                hint = "expected a folder that can be written (results_dir); nothing was sent"
            else:
                hint = (
                    "the file is damaged or no judge's store; keep it, save what is readable with `python -m "
                    "eval.judges.salvage OLD NEW`, or move it away to start a new one"
                )
            raise DataError(f"{self.path}: cannot be {action} ({error}); {hint}") from error

    def close(self) -> None:
        """Close the file."""
        with self._explained("closed"):
            self._connection.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The stored answers among these keys.

        Raises:
            DataError: the file is damaged, or a row of it is.
        """
        found = {}
        with self._explained("read"):
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                batch = keys[start : start + _KEYS_PER_QUERY]
                rows = self._connection.execute(
                    f"SELECT key, answer, model, times FROM answers WHERE key IN ({','.join('?' * len(batch))})", batch
                )
                found.update((key, self._stored(key, *row)) for key, *row in rows)
        return found

    def _stored(self, key: str, answer: Any, model: Any, times: Any) -> Stored:
        try:
            choice = json.loads(answer)
        except (ValueError, TypeError, RecursionError):
            choice = None
        if not isinstance(choice, dict):
            raise DataError(
                f"{self.path}: the answer stored under {key} is not a JSON object; save the others with `python -m "
                "eval.judges.salvage OLD NEW` and use the new file: only this one is asked again"
            )
        return Stored(choice, str(model), int(times))

    def answering_models(self) -> list[str]:
        """Names of the models that gave the stored answers, most frequent first; "" where the endpoint named none."""
        with self._explained("read"):
            rows = self._connection.execute("SELECT model FROM answers GROUP BY model ORDER BY COUNT(*) DESC, model")
            return [row[0] for row in rows]

    def ledger(self) -> dict[str, Any]:
        """What was spent so far: {answered, failed: {outcome: tries}, finish_reasons: {reason: answers}, prompt_tokens,
        completion_tokens, counted_prompt_tokens, counted_completion_tokens, dollars, unsure_dollars}.

        `failed["sent"]` counts requests that a killed run had under way.
        """
        columns = ("prompt_tokens", "completion_tokens", "counted_prompt_tokens", "counted_completion_tokens")
        columns += ("dollars", "unsure_dollars")
        with self._explained("read"):
            execute = self._connection.execute
            tries = dict(execute("SELECT outcome, COUNT(*) FROM ledger GROUP BY outcome ORDER BY outcome").fetchall())
            reasons = execute(
                "SELECT finish_reason, COUNT(*) FROM ledger WHERE outcome = ? GROUP BY 1 ORDER BY 1", (ANSWERED,)
            ).fetchall()
            sums = execute(f"SELECT {', '.join(f'TOTAL({column})' for column in columns)} FROM ledger").fetchone()
        totals = {name: value if "dollars" in name else int(value) for name, value in zip(columns, sums)}
        tries.pop(NOT_SENT, None)
        answered = tries.pop(ANSWERED, 0)
        return {"answered": answered, "failed": tries, "finish_reasons": dict(reasons), **totals}

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, entries: Sequence[Intent | Outcome]) -> list[int]:
        """Write to the ledger, and answers with it: all entries or none.

        Returns:
            the ledger row of each entry.

        Raises:
            DataError: nothing was written; the message says why.
        """
        with self._explained("written"):
            if self._is_full and any(isinstance(entry, Intent) for entry in entries):
                raise OSError(errno.ENOSPC, "the disk is full")  # the room that is left is for answers under way
            try:
                return self._write(entries)
            except (sqlite3.Error, OSError) as error:
                if not _is_full(error) or all(isinstance(entry, Intent) for entry in entries):
                    raise
                self._is_full = True
                self._release_reserve()  # answers were paid for: they go into the space that was set aside for them
                return self._write(entries)

    def _write(self, entries: Sequence[Intent | Outcome]) -> list[int]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            rows = [self._insert(e) if isinstance(e, Intent) else self._settle(e) for e in entries]
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite itself has rolled back where the disk is full
                self._connection.execute("ROLLBACK")
            raise
        return rows

    def _insert(self, intent: Intent) -> int:
        cursor = self._connection.execute(
            "INSERT INTO ledger VALUES (NULL, ?, ?, ?, '', 0, 0, 0, 0, 0, ?)",
            (time.time(), intent.key, SENT, intent.most_dollars),
        )
        return int(cursor.lastrowid or 0)

    def _settle(self, outcome: Outcome) -> int:
        cost, reason = outcome.cost, ""
        if outcome.stored is not None:
            reason = str(outcome.stored.choice.get("finish_reason") or "")[:40]
            self._connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET"
                " answer = excluded.answer, model = excluded.model, times = times + 1",
                (
                    outcome.key,
                    outcome.request,
                    json.dumps(outcome.stored.choice, allow_nan=False),
                    outcome.stored.model,
                ),
            )
        self._connection.execute(
            "UPDATE ledger SET outcome = ?, finish_reason = ?, prompt_tokens = ?, completion_tokens = ?,"
            " counted_prompt_tokens = ?, counted_completion_tokens = ?, dollars = ?, unsure_dollars = ? WHERE id = ?",
            (
                outcome.name,
                reason,
                cost.prompt_tokens,
                cost.completion_tokens,
                cost.counted_prompt_tokens,
                cost.counted_completion_tokens,
                cost.dollars,
                cost.unsure_dollars,
                outcome.row,
            ),
        )
        return outcome.row

    def insert_rows(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Copy another store's rows of the table answers or ledger."""
        with self._explained("written"):
            self._connection.execute("BEGIN IMMEDIATE")
            for row in rows:
                self._connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(row))})", row)
            self._connection.execute("COMMIT")

    # -- batches ----------------------------------------------------------------------------------------------------

    def begin_batch(self, name: str, intents: Sequence[Intent], bodies: Mapping[str, Any]) -> BatchRows:
        """Note a batch before it is sent: its requests by key, each with its row in the ledger."""
        rows = {intent.key: (row, bodies[intent.key]) for intent, row in zip(intents, self.write(intents))}
        with self._explained("written"):
            self._connection.execute(
                "INSERT INTO batches VALUES (?, ?, '', ?, 0)", (name, time.time(), json.dumps(rows))
            )
        return rows

    def name_batch(self, name: str, remote: str) -> None:
        """Note the endpoint's own name of a batch, under which it is found again."""
        with self._explained("written"):
            self._connection.execute("UPDATE batches SET remote = ? WHERE name = ?", (remote, name))

    def end_batch(self, name: str) -> None:
        """Note that all of a batch's answers are stored."""
        with self._explained("written"):
            self._connection.execute("UPDATE batches SET done = 1 WHERE name = ?", (name,))

    def open_batches(self) -> list[tuple[str, str, BatchRows]]:
        """Batches that were sent and not read yet: (name, the endpoint's name or "", requests as `begin_batch`)."""
        with self._explained("read"):
            batches = self._connection.execute("SELECT name, remote, rows FROM batches WHERE NOT done ORDER BY at")
            return [
                (name, remote, {key: (row, body) for key, (row, body) in json.loads(text).items()})
                for name, remote, text in batches
            ]

    # -- one process at a time, and room for what is under way --------------------------------------------------------

    @contextmanager
    def exclusive(self, concurrency: int = 1) -> Iterator[None]:
        """One asking process a judge, so that the cap holds and nothing is asked by two at once; others wait.

        Args:
            concurrency: requests side by side, whose answers must still fit where the disk fills up.

        Raises:
            DataError: the folder cannot be written, or the disk has no room for the answers.
        """
        with contextlib.ExitStack() as stack:
            with self._explained("locked"):
                lock = stack.enter_context(open(self.path.with_suffix(".lock"), "w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"{self.path}: another process is asking this judge; waiting for it", file=sys.stderr)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                stack.callback(self._release_reserve)
                self._is_full = False
                with open(self._reserve, "wb") as reserve:
                    os.posix_fallocate(reserve.fileno(), 0, RESERVE + concurrency * RESERVE_PER_REQUEST)
            yield

    @property
    def _reserve(self) -> Path:
        return self.path.with_suffix(".reserve")

    def _release_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)


def _is_full(error: Exception) -> bool:
    return "full" in str(error).lower() or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


class Writer:
    """Writes for many requests at once: what comes while the disk is busy goes into the next transaction.

    A transaction is synced to the disk, which takes milliseconds; one for each of a thousand requests per second would
    be the bottleneck.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Intent | Outcome, asyncio.Future[int]]] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge-store")

    def put(self, entry: Intent | Outcome) -> asyncio.Future[int]:
        """The entry's row in the ledger, once it is on disk; raises DataError where it could not be written."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            # Intents first and alone: where the disk is full they fail without what was paid for.
            for kind in (Outcome, Intent):
                part = [(entry, future) for entry, future in batch if isinstance(entry, kind)]
                if part:
                    await self._write(loop, part)

    async def _write(self, loop: asyncio.AbstractEventLoop, part: list[tuple[Any, asyncio.Future[int]]]) -> None:
        try:
            rows = await loop.run_in_executor(self._thread, self._store.write, [entry for entry, _ in part])
        except DataError as error:
            for _, future in part:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), row in zip(part, rows):
                if not future.done():
                    future.set_result(row)

    async def close(self) -> None:
        """Write what is still waiting."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        self._thread.shutdown()
