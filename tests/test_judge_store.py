"""A judge's store on a full disk, in a folder that cannot be written, damaged, and used by two processes at once."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ask_hostile import ask, make_client
from hostile import Hostile

from eval.judges import store as store_module
from eval.judges.salvage import salvage
from eval.judges.store import Cost, Intent, Outcome, Store, Stored
from metaapo.data import DataError


@contextmanager
def mounted(folder, *options):
    """A file system of its own in memory; skips where this user may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def check_full(folder, store, grow):
    """Fill it while a judge is asked, make room, go on: nothing that was stored is asked again."""
    with Hostile(latency=0.002) as server:
        with pytest.raises(DataError, match="full") as error:
            ask(make_client(server.url, store), 3000)
        assert "\n" not in str(error.value)
        answered = sum(server.answered.values())
        assert 20 < answered < 3000
        grow()
        client = make_client(server.url, store)
        ledger = client.store.ledger()
        assert ledger["answered"] == answered  # what was paid for is there, to the last answer
        assert server.bill <= ledger["dollars"] + ledger["unsure_dollars"] + 1e-9
        assert ask(client, answered + 50) == [7] * (answered + 50)
    assert set(server.answered.values()) == {1}


def test_a_full_disk_costs_no_answer(tmp_path):
    with mounted(tmp_path / "disk", "size=3m") as disk:
        (disk / "ballast").write_bytes(b"x" * (1 << 20))
        check_full(disk, disk / "s.sqlite", (disk / "ballast").unlink)


def test_a_store_that_may_not_grow_costs_no_answer(tmp_path, monkeypatch):
    """The same by SQLite's own limit, for users who may not mount; the reserve is pages here."""
    path = tmp_path / "s.sqlite"
    pages, init, release = [60], Store.__init__, Store._release_reserve

    def limited(self, *arguments):
        init(self, *arguments)
        self._connection.execute(f"PRAGMA max_page_count = {pages[0]}")

    def released(self):
        self._connection.execute(f"PRAGMA max_page_count = {pages[0] + 30}")
        release(self)

    monkeypatch.setattr(Store, "__init__", limited)
    monkeypatch.setattr(Store, "_release_reserve", released)
    check_full(tmp_path, path, lambda: pages.append(pages.pop() + 1000))


def test_no_room_for_the_answers_is_said_before_anything_is_sent(tmp_path):
    with mounted(tmp_path / "disk", "size=512k") as disk, Hostile() as server:
        with pytest.raises(DataError, match="full"):
            ask(make_client(server.url, disk / "s.sqlite"), 10)
        assert not server.requests


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file/s.sqlite: cannot be opened.*folder that can be written"):
        Store(tmp_path / "file" / "s.sqlite")
    with mounted(tmp_path / "disk", "size=4m") as disk:
        Store(disk / "s.sqlite").close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("s.sqlite", "new/s.sqlite"):
            with pytest.raises(DataError, match=r"s.sqlite: cannot be .*folder that can be written"):
                Store(disk / name)


def make_store(path, count=400):
    store = Store(path)
    for i in range(count):
        (row,) = store.write([Intent(f"{i:064x}", 0.1)])
        answer = Stored({"finish_reason": "stop", "message": {"content": "Rating: [[7]] " * 40}}, "m")
        store.write([Outcome(row, "answered", Cost(10, 5, 0.01), f"{i:064x}", "{}", answer)])
    store.close()
    return [f"{i:064x}" for i in range(count)]


def overwrite(path, start, content):
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(content)


def test_damage_is_told_apart_and_what_is_readable_is_saved(tmp_path):
    path = tmp_path / "s.sqlite"
    keys = make_store(path)
    whole = path.read_bytes()

    overwrite(path, 0, b"not SQLite at all")
    with pytest.raises(DataError, match="not a database.*salvage"):
        Store(path)

    path.write_bytes(whole)
    overwrite(path, len(whole) // 2, os.urandom(8192))
    with pytest.raises(DataError, match="s.sqlite: cannot be.*salvage") as error:
        Store(path).read(keys)
    assert "\n" not in str(error.value)
    counts = salvage(path, tmp_path / "saved.sqlite")
    assert 300 < counts["answers"] < 400
    saved = Store(tmp_path / "saved.sqlite")
    assert len(saved.read(keys)) == counts["answers"]
    assert saved.ledger()["dollars"] == pytest.approx(0.01 * counts["ledger"])

    path.write_bytes(whole)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET answer = '{\"a\": ' WHERE key = ?", (keys[7],))
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=f"{keys[7]} is not a JSON object.*salvage"):
        Store(path).read(keys)
    assert salvage(path, tmp_path / "other.sqlite") == {
        "answers": 399,
        "answers_lost": 1,
        "ledger": 400,
        "ledger_lost": 0,
    }

    path.unlink()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, request TEXT, answer TEXT)")
    foreign.commit()
    foreign.close()
    with pytest.raises(DataError, match="not a judge's store of this version"):
        Store(path)
    for old, new, message in [
        (tmp_path / "none.sqlite", tmp_path / "n", "no such file"),
        (path, tmp_path / "saved.sqlite", "exists"),
    ]:
        with pytest.raises(DataError, match=message):
            salvage(old, new)


def test_two_processes_at_once_ask_nothing_twice(tmp_path):
    code = "import sys; sys.path.insert(0, 'tests'); from ask_hostile import *; ask(make_client(*sys.argv[1:]), 200)"
    with Hostile(latency=0.005) as server:
        command = [sys.executable, "-c", code, server.url, tmp_path / "s.sqlite"]
        root = Path(__file__).resolve().parents[1]
        both = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [process.communicate(timeout=60)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], errors
        assert server.requests == 200
        assert sum("another process is asking this judge; waiting" in error for error in errors) <= 1
    ledger = Store(tmp_path / "s.sqlite").ledger()
    assert (ledger["answered"], ledger["failed"]) == (200, {})


def test_many_processes_may_make_a_store_at_once(tmp_path):
    code = (
        "import sys, time; from eval.judges.store import Store; time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
    )
    code += "for i in range(20): Store(f'{sys.argv[1]}/{i}.sqlite').ledger()"
    command = [sys.executable, "-c", code, tmp_path, str(time.time() + 2)]
    root = Path(__file__).resolve().parents[1]
    several = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=240)[1] for process in several] == [""] * 4


def test_a_store_can_be_read_while_another_process_asks(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    code = "import sys; from eval.judges.store import Store; print(Store(sys.argv[1]).ledger()['answered'])"
    with store.exclusive():
        command = [sys.executable, "-c", code, store.path]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_reserve_is_there_while_a_judge_is_asked_and_gone_after(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    with store.exclusive(8):
        size = (tmp_path / "s.reserve").stat().st_size
        assert size == store_module.RESERVE + 8 * store_module.RESERVE_PER_REQUEST
    assert not (tmp_path / "s.reserve").exists()
    json.dumps(store.ledger())
