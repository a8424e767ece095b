"""A judge's endpoint that cheats, breaks and sends bombs: what is requested, stored and paid for, mode by mode."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from ask_hostile import ask, make_client
from hostile import KEY, MODES, PAID, Hostile

from eval.judges.client import READY, JudgeError
from eval.judges.money import Size
from eval.judges.store import Store

COUNT, CONCURRENCY = 30, 8
UNREADABLE = "5 of 30 judgments were refused or cannot be read, the last one: "
# The outcome of a run in which every request meets the mode. If a mode is not listed, all 30 grades are 7.
STOPS = {
    "empty": UNREADABLE + "no words",
    "null content": UNREADABLE + "no words",
    "thinking only": UNREADABLE + "thinking and no words.*thinking_tokens",
    "reasoning only": UNREADABLE + "thinking and no words.*thinking_tokens",
    "refusal": UNREADABLE + "refused: 'I cannot judge this.'",
    "filtered": UNREADABLE + r"no words \(finish_reason content_filter\)",
    "tool call": UNREADABLE + "a call of a tool and no words",
    "content a number": UNREADABLE + "no words",
    "no grade": UNREADABLE + "'I would give it seven.'",
    "grade 95": UNREADABLE + r"'Rating: \[\[95\]\]'",
    "5,000 digits": UNREADABLE + "'9+",
    "other model": "answers as 'something-else-7b'.*answers_as",
    "deep nesting": r"gives no answers.*no JSON \(RecursionError\)",
    "not JSON": "gives no answers.*no JSON",
    "empty body": "gives no answers.*no JSON",
    "a list": "gives no answers.*no JSON object",
    "no choices": "gives no answers.*no choices",
    "choices null": "gives no answers.*no choices",
    "choice a text": "gives no answers.*no choices",
    "message null": "gives no answers.*no message",
    "error of status 200": "gives no answers.*upstream overloaded",
    "not UTF-8": "gives no answers.*no JSON",
    "cut": "gives no answers.*connection cut",
    "hang": "gives no answers.*no answer within 0.2 s",
    "slow": "gives no answers.*no answer within 0.2 s",
    "50 MB": "gives no answers.*more than 4 MB",
    "gzip bomb": "gives no answers.*more than 4 MB",
    "broken gzip": "gives no answers.*(cannot be decompressed|no JSON)",
    "400 filtered": UNREADABLE + "400: content management policy",
    "401": r"answered 401 \(Incorrect API key provided: \*\*\*\).*HOSTILE_KEY",
    "404": r"answered 404 \(no such model\)",
    "429": "gives no answers.*429: slow down",
    "429 Retry-After": "gives no answers.*429: slow down",
    "429 for a day": r"asks to wait 86400 s \(daily limit\)",
    "429 odd Retry-After": "gives no answers.*429: slow down",
    "quota": r"answered 429 \(You exceeded your current quota. \(insufficient_quota\)\)",
    "quota in other words": "gives no answers.*You are out of credits",
    "500": "gives no answers.*500: oops",
    "503": "gives no answers.*503: overloaded",
    "529": "gives no answers.*529: Overloaded",
    "redirection": "answered 307 .moved to http://127.0.0.1:9/elsewhere",
    "cut before the answer": "gives no answers.*connection cut",
    "no HTTP": "gives no answers.*connection cut",
}
BLANK = ("empty", "null content", "thinking only", "reasoning only", "tool call", "content a number")
OK = [mode for mode in MODES if mode not in STOPS]


def rows(client):
    ledger = client.store.ledger()
    return ledger["answered"] + sum(ledger["failed"].values())


def check_money(server, client):
    ledger = client.store.ledger()
    assert server.bill <= ledger["dollars"] + ledger["unsure_dollars"] + 1e-9
    assert 0 <= ledger["dollars"] < 1
    return ledger


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_ends_in_grades_or_in_one_sentence_and_nothing_paid_is_lost(mode, tmp_path):
    path = tmp_path / "s.sqlite"
    timeout = 0.2 if mode in ("hang", "slow") else 5.0
    with Hostile(mode, hang=1.0) as server:
        client = make_client(server.url, path, CONCURRENCY, timeout=timeout)
        if mode in STOPS:
            with pytest.raises(JudgeError, match=STOPS[mode]) as error:
                ask(client, COUNT)
            assert "\n" not in str(error.value)
            assert KEY not in str(error.value)
            tries = 3 if mode in BLANK else 1
            assert server.requests <= CONCURRENCY * tries + 10
        else:
            assert ask(client, COUNT) == [7] * COUNT
            assert server.requests == COUNT
        assert rows(client) == server.requests  # every request is in the ledger
        assert "sent" not in client.store.ledger()["failed"]
        check_money(server, client)
        stored = client.store._connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        assert (stored > 0) == (mode in OK or (mode in PAID and "gives no" not in STOPS[mode]))
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()
    with Hostile(latency=0.001) as server:  # the endpoint is repaired
        client = make_client(server.url, path, CONCURRENCY)
        if mode == "other model":  # its answers contain grades, which the user may accept
            with pytest.raises(JudgeError, match="answers_as"):
                ask(client, COUNT)
            client = make_client(server.url, path, CONCURRENCY, answers_as=["something-else-7b"])
        assert ask(client, COUNT) == [7] * COUNT
        assert server.requests <= (0 if mode in OK else COUNT)
        before = server.requests
        assert ask(client, COUNT) == [7] * COUNT  # a rerun sends no request
        assert server.requests == before


def test_two_thousand_judgments_at_ten_percent_of_faults_lose_none(tmp_path):
    faults = ["429", "429 Retry-After", "500", "503", "529", "cut", "cut before the answer", "not JSON", "empty body"]
    faults += ["no choices", "message null", "empty", "null content", "reasoning only", "broken gzip", "deep nesting"]
    with Hostile([*faults, "negative usage", "lone surrogate", "hang"], rate=0.1, hang=3.0) as server:
        client = make_client(server.url, tmp_path / "s.sqlite", 32, attempts=8, timeout=2.0)
        assert ask(client, 2000) == [7] * 2000
        assert server.did["hang"]
        assert rows(client) == server.requests
        check_money(server, client)
        before = server.requests
        assert ask(client, 2000) == [7] * 2000
        assert server.requests == before
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize("mode", ["quota", "quota in other words"])
@pytest.mark.parametrize(("concurrency", "served", "count"), [(1, 10, 20), (16, 100, 300)])
def test_when_the_quota_is_gone_hardly_anything_more_is_sent(mode, concurrency, served, count, tmp_path):
    with Hostile(mode, after=served, latency=0.002) as server:
        client = make_client(server.url, tmp_path / "s.sqlite", concurrency, attempts=20)
        with pytest.raises(JudgeError, match="You exceeded your current quota|You are out of credits"):
            ask(client, count)
        assert server.requests <= served + concurrency + 10
    assert client.store.ledger()["answered"] == served
    with Hostile() as server:
        assert ask(make_client(server.url, tmp_path / "s.sqlite", concurrency), count) == [7] * count
        assert server.requests == count - served


def test_twenty_kills_lose_neither_answers_nor_money(tmp_path):
    path, count, concurrency, rng = tmp_path / "s.sqlite", 1500, 48, random.Random(0)
    with Hostile(["429", "500", "cut", "empty"], rate=0.05, latency=0.02) as server:
        command = [sys.executable, Path(__file__).with_name("ask_hostile.py"), server.url, path, "48", str(count)]
        asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        stored = set()
        for _ in range(20):
            before, arrived = Counter(server.answered), server.requests
            asking.stdin.write(b"go\n")
            asking.stdin.flush()
            child = int(asking.stdout.readline())
            deadline = time.monotonic() + 20
            while server.requests < arrived + 60 + rng.randrange(100) and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
            time.sleep(0.05)  # requests in progress at the endpoint
            assert server.requests > arrived
            assert not set(Counter(server.answered) - before) & stored  # no stored request is sent again
            store = Store(path)
            requests = store._connection.execute("SELECT request, answer FROM answers").fetchall()
            stored = {json.loads(r)["messages"][-1]["content"] for r, a in requests if "[[7]]" in a}
            ledger = store.ledger()
            store.close()
            assert server.bill <= ledger["dollars"] + ledger["unsure_dollars"] + 1e-9
            assert ledger["failed"]["sent"] <= 20 * (concurrency + READY + concurrency // 8)
        asking.communicate()
        assert 200 < len(stored) < count
        client = make_client(server.url, path, concurrency, attempts=20)
        assert ask(client, count) == [7] * count
        check_money(server, client)
        before = server.requests
        assert ask(client, count) == [7] * count
        assert server.requests == before


@pytest.mark.parametrize("key", ["sk-0123456789\n", " sk-0123456789\r\n"])
def test_a_key_with_a_line_end_is_sent_without_it(key, tmp_path, monkeypatch):
    with Hostile() as server:
        client = make_client(server.url, tmp_path / "s.sqlite")
        monkeypatch.setenv("HOSTILE_KEY", key)
        assert ask(client, 3) == [7] * 3


@pytest.mark.parametrize("key", ["sk-0123\n456789", "sk-012345678\u201d", "sk-\x7f0123456789"])
def test_a_key_that_no_header_can_hold_is_an_error_that_does_not_repeat_it(key, tmp_path, monkeypatch):
    with Hostile() as server:
        client = make_client(server.url, tmp_path / "s.sqlite")
        monkeypatch.setenv("HOSTILE_KEY", key)
        with pytest.raises(JudgeError, match="HOSTILE_KEY") as error:
            ask(client, 3)
        assert "0123" not in str(error.value)
        assert (server.requests, rows(client)) == (0, 0)


def test_a_run_with_a_few_refusals_passes_and_so_does_its_rerun(tmp_path):
    with Hostile("400 filtered", rate=0.01, seed=3) as server:
        client = make_client(server.url, tmp_path / "s.sqlite")
        first = ask(client, 400)
        refused = first.count(None)
        assert 0 < refused <= 20
        before = server.requests
        server.rate, server.otherwise = 1.0, "good"  # every request sent now is refused again
        assert ask(client, 400) == first
        assert server.requests == before + refused


def test_a_tight_cap_waits_for_requests_under_way(tmp_path):
    with Hostile(latency=0.01) as server:
        client = make_client(server.url, tmp_path / "s.sqlite", 48)
        ask(client, 1)
        most = client.prices.most(Size(16, 12, 24, 64))
        needed = 20 * server.bill
        assert 48 * most > needed + 2 * most
        client = make_client(server.url, tmp_path / "s.sqlite", 48, max_dollars=needed + 2 * most)
        assert ask(client, 20) == [7] * 20
        assert client.store.ledger()["dollars"] == pytest.approx(server.bill)


def test_eight_bodies_of_fifty_megabytes_and_a_bomb_fit_into_little_memory(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from ask_hostile import *\n"
        "try: ask(make_client(sys.argv[1], sys.argv[2]), 24)\n"
        "except ValueError as error: print(error)\n"
        # The peak of this program; getrusage's would include that of the process that started it.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "print(int(status['VmHWM'].split()[0]) // 1024)"
    )
    with Hostile(["50 MB", "gzip bomb"]) as server:
        command = [sys.executable, "-c", code, server.url, tmp_path / "s.sqlite"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said, megabytes = done.stdout.splitlines()
    assert "more than 4 MB" in said
    assert int(megabytes) < 300
