"""Copy what is readable of a judge's damaged store into a new one: `python -m eval.judges.salvage OLD NEW`.

The old file stays as it is. Answers that cannot be read are asked again with the new store; lines of the ledger that
cannot be read are counted, since the money they stood for is then unknown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.judges.store import Store
from metaapo.command import errors_in_one_sentence
from metaapo.data import DataError


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...] | None]:
    """The rows of a table in order; None for each that cannot be read."""
    try:
        last = connection.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()[0] or 0
    except sqlite3.DatabaseError:
        last = 1_000_000  # its last page is damaged: try as many as a store may have
    for rowid in range(1, last + 1):
        try:
            yield from connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,))
        except sqlite3.DatabaseError:
            yield None


def _is_answer(row: tuple[Any, ...]) -> bool:
    with contextlib.suppress(ValueError, TypeError, IndexError, RecursionError):
        return isinstance(json.loads(row[2]), dict)
    return False


def salvage(old: str | Path, new: str | Path) -> dict[str, int]:
    """Copy answers and ledger.

    Returns:
        {answers, answers_lost, ledger, ledger_lost}: how many rows were and were not readable.

    Raises:
        DataError: there is no old file, the new one exists, or the old one is no store at all.
    """
    if not Path(old).is_file():
        raise DataError(f"{old}: no such file; expected a judge's store")
    if Path(new).exists():
        raise DataError(f"{new}: exists; name a new file")
    store = Store(new)
    counts = {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as connection:
            for table in ("answers", "ledger"):
                rows = list(_rows(connection, table))
                kept = [row for row in rows if row is not None and (table != "answers" or _is_answer(row))]
                store.insert_rows(table, kept)
                counts |= {table: len(kept), f"{table}_lost": len(rows) - len(kept)}
    except sqlite3.DatabaseError as error:
        raise DataError(f"{old}: nothing can be read ({error}); expected a judge's store") from error
    finally:
        store.close()
    return counts


def main() -> None:
    """Command line: copy what is readable."""
    parser = argparse.ArgumentParser(prog="python -m eval.judges.salvage", description=__doc__.splitlines()[0])
    parser.add_argument("old", help="the damaged store")
    parser.add_argument("new", help="a file that does not exist yet")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        json.dump(salvage(arguments.old, arguments.new), sys.stdout)
        print()


if __name__ == "__main__":
    main()
