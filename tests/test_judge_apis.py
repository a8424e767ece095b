"""Judges of today: three ways to address an endpoint, thinking, batches at half the price, rate limits."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from ask_hostile import ask, grade_in, make_client
from hostile import KEY

from eval.alpacaeval2.preferences import is_switched
from eval.judges import Comparison
from eval.judges.answers import Answer, words_of
from eval.judges.client import Client, JudgeError, check_model
from eval.judges.config import JudgeConfig
from eval.judges.openai import OpenAIJudge
from eval.judges.pace import Allowance
from eval.judges.store import Store
from eval.judges.wire import body_of

GRADE = "Fine. Rating: [[7]]"


class Provider:
    """OpenAI's, Azure's and Anthropic's endpoints on loopback, batches included; checks each one's key and form."""

    def __init__(self, polls=2, fail=(), lose_name=False):
        self.polls, self.fail, self.lose_name = polls, set(fail), lose_name
        self.seen, self.asked, self.batches, self.files, self.looks = [], Counter(), {}, {}, Counter()
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)

    def _serve(self, ready):
        asyncio.set_event_loop(self._loop)

        async def start():
            app = web.Application(client_max_size=1 << 26)
            app.router.add_route("*", "/{tail:.*}", self._handle)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()

        self._loop.create_task(start())
        self._loop.run_forever()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _handle(self, request):
        path, headers = request.path, request.headers
        anthropic = path.startswith("/v1/messages")
        key = headers.get("x-api-key") if anthropic else headers.get("api-key") or headers.get("Authorization")
        if key not in (KEY, f"Bearer {KEY}") or (anthropic and "anthropic-version" not in headers):
            return web.json_response({"error": {"message": "no key"}}, status=401)
        if "/batches" in path or "/files" in path:
            return await self._batch(request, anthropic)
        body = await request.json()
        self.seen.append((request.path_qs, dict(headers), body))
        return web.json_response(self._answer(body, anthropic))

    def _answer(self, body, anthropic):
        self.asked[body["messages"][-1]["content"]] += 1
        if anthropic:
            content = [{"type": "thinking", "thinking": "[[9]]?"}, {"type": "text", "text": GRADE}]
            usage = {"input_tokens": 20, "output_tokens": 12}
            return {
                "type": "message",
                "model": body["model"],
                "content": content,
                "stop_reason": "end_turn",
                "usage": usage,
            }
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 32}  # thinking is in the total only
        message = {"role": "assistant", "content": GRADE}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"model": body["model"], "choices": [choice], "usage": usage}

    async def _batch(self, request, anthropic):
        path = request.path
        if request.method == "POST" and path.endswith("/files"):
            form = await request.post()
            assert form["purpose"] == "batch"
            name = f"file-{len(self.files)}"
            self.files[name] = form["file"].file.read()
            return web.json_response({"id": name})
        if request.method == "POST":
            body = await request.json()
            name = f"batch-{len(self.batches)}"
            lines = body["requests"] if anthropic else map(json.loads, self.files[body["input_file_id"]].split(b"\n"))
            requests = {r["custom_id"]: r["params" if anthropic else "body"] for r in lines}
            self.batches[name] = {"requests": requests, "metadata": body.get("metadata")}
            if self.lose_name:
                self.lose_name = False
                request.transport.close()  # made, but the client never hears of it
            return web.json_response({"id": name})
        if path.endswith("/batches"):
            listed = [{"id": name, "metadata": batch["metadata"]} for name, batch in self.batches.items()]
            return web.json_response({"data": listed})
        name = next(part for part in path.split("/") if part.startswith(("batch-", "out-")))
        if path.endswith(("/results", "/content")):
            return web.Response(text=self._results(name.replace("out-", ""), anthropic))
        self.looks[name] += 1
        done = self.looks[name] > self.polls
        if anthropic:
            return web.json_response({"id": name, "processing_status": "ended" if done else "in_progress"})
        return web.json_response(
            {"id": name, "status": "completed" if done else "in_progress", "output_file_id": f"out-{name}"}
        )

    def _results(self, name, anthropic):
        lines = []
        for key, body in self.batches[name]["requests"].items():
            failing = body["messages"][-1]["content"] in self.fail
            self.fail.discard(body["messages"][-1]["content"])
            if anthropic:
                error = {"type": "errored", "error": {"type": "overloaded_error"}}
                message = {} if failing else self._answer(body, True)
                lines.append(
                    {"custom_id": key, "result": error if failing else {"type": "succeeded", "message": message}}
                )
            elif failing:
                lines.append({"custom_id": key, "response": None, "error": {"code": "batch_expired"}})
            else:
                lines.append({"custom_id": key, "response": {"status_code": 200, "body": self._answer(body, False)}})
        return "\n".join(map(json.dumps, lines))


def entry(provider, api, **settings):
    url = provider.base + ("/openai/deployments/judge" if api == "azure" else "/v1")
    return {"api": api, "url": url, "logprobs": api != "anthropic"} | settings


@pytest.mark.parametrize(("api", "path", "header"), [
    ("openai", "/v1/chat/completions", "Authorization"),
    ("azure", "/openai/deployments/judge/chat/completions?api-version=2024-10-21", "api-key"),
    ("anthropic", "/v1/messages", "x-api-key"),
])  # fmt: skip
def test_each_api_gets_its_address_its_key_and_its_form(api, path, header, tmp_path):
    with Provider() as provider:
        settings = entry(provider, api)
        client = make_client(settings.pop("url"), tmp_path / "s.sqlite", **settings)
        assert ask(client, 5) == [7] * 5
        asked, headers, body = provider.seen[0]
    assert asked == path
    assert headers[header].endswith(KEY)
    assert body["max_tokens"] == 64
    ledger = client.store.ledger()
    assert (ledger["prompt_tokens"], ledger["completion_tokens"]) == (100, 60)
    assert ledger["finish_reasons"] == {"end_turn" if api == "anthropic" else "stop": 5}


def test_anthropics_system_prompt_stands_beside_the_messages():
    config = JudgeConfig(kind="openai", model="m", api="anthropic", logprobs=False, parameters={"temperature": None})
    messages = [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Grade."}]
    body = body_of(config, messages, {"max_tokens": 9, "temperature": 0, "logprobs": True, "top_logprobs": 5})
    assert body == {"model": "m", "messages": messages[1:], "system": "Be fair.", "max_tokens": 9}


def test_a_reasoning_judge_gets_one_limit_with_room_to_think_and_no_temperature():
    settings = {"max_tokens": 2048, "temperature": 0}
    make = lambda **more: body_of(JudgeConfig(kind="openai", model="m", **more), [], settings)  # noqa: E731
    plain = {"model": "m", "messages": []}
    assert make() == plain | settings
    assert make(token_limit="max_completion_tokens") == plain | {"max_completion_tokens": 2048, "temperature": 0}
    thinks = make(token_limit="max_completion_tokens", thinking_tokens=8000, logprobs=False)
    assert thinks == plain | {"max_completion_tokens": 10048}
    given = make(token_limit="max_completion_tokens", parameters={"max_completion_tokens": 500, "temperature": None})
    assert given == plain | {"max_completion_tokens": 500}
    assert make(parameters={"max_tokens": None}) == plain | {"temperature": 0}


def test_without_any_limit_a_paid_judge_is_not_asked(tmp_path):
    client = make_client("http://127.0.0.1:9/v1", tmp_path / "s.sqlite", parameters={"max_tokens": None})
    with pytest.raises(JudgeError, match="nothing limits an answer"):
        ask(client, 3)


def test_a_judge_without_log_probabilities_prefers_by_its_letter(tmp_path):
    comparison = Comparison([{"role": "user", "content": "?"}], "a", "b")
    config = JudgeConfig(kind="openai", model="m", logprobs=False, thinking_tokens=100)
    judge = OpenAIJudge("j", config, Client(config, Store(tmp_path / "s.sqlite")), "v0.1-2024")
    body = judge._preference_body(comparison, False)
    assert "logprobs" not in body
    assert body["max_tokens"] == 116
    said = {"M": 2.0, "m": 1.0, "<think>M?</think>\nm": 1.0, '"M"': 2.0, "neither": None, "": None}
    answers = [Answer({"message": {"content": text}, "finish_reason": "stop"}) for text in said]
    judge.client.ask = lambda bodies, readable, of: answers
    values = [judgment.value for judgment in judge.prefer([comparison] * len(said))]
    turned = is_switched("?")
    assert values == [None if v is None else 3 - v if turned else v for v in said.values()]


@pytest.mark.parametrize(("content", "words"), [
    ("<think>[[9]]</think>[[4]]", "[[4]]"),
    ("<THINKING>a\nb</THINKING>\n\nRating: [[4]]", "Rating: [[4]]"),
    ("[[9]]?</think>\nRating: [[4]]", "Rating: [[4]]"),
    ("<think>cut off [[9]]", ""),
    ("<think>a</think>b<think>c</think>d", "bd"),
    ("1 < 2, [[4]]", "1 < 2, [[4]]"),
    ([{"type": "reasoning", "text": "[[9]]"}, {"type": "output_text", "text": "[[4]]"}, {"text": "!"}, 7], "[[4]]!"),
    (None, ""),
    ({"a": 1}, ""),
])  # fmt: skip
def test_thinking_is_no_part_of_the_judges_words(content, words):
    assert words_of({"message": {"content": content}}) == words


@pytest.mark.parametrize(("asked", "answered", "same"), [
    ("gpt-4.1", "gpt-4.1-2025-04-14", True),
    ("gpt-4.1", "gpt-4.1-mini-2025-04-14", False),
    ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b-instruct", True),
    ("claude-sonnet-5-latest", "claude-sonnet-5-20260630", True),
    ("gpt-4.1", "", True),
    ("gpt-4.1", "gpt-4o", False),
    ("served", "openchat", False),
])  # fmt: skip
def test_another_model_than_the_one_asked_is_noticed(asked, answered, same):
    config = JudgeConfig(kind="openai", model=asked)
    if same:
        check_model(config, answered)
        return
    with pytest.raises(JudgeError, match="answers_as"):
        check_model(config, answered)
    check_model(config.model_copy(update={"answers_as": [answered]}), answered)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_batch_costs_half_and_what_failed_in_it_is_sent_again(api, tmp_path):
    with Provider(fail=["Grade answer 3.", "Grade answer 5."]) as provider:
        settings = entry(provider, api, batch=True, batch_poll=0.01)
        client = make_client(settings.pop("url"), tmp_path / "s.sqlite", **settings)
        assert ask(client, 40) == [7] * 40
        assert len(provider.batches) == 2
        assert set(provider.asked.values()) == {1}
        assert ask(client, 40) == [7] * 40
        assert len(provider.batches) == 2
    ledger = client.store.ledger()
    assert ledger["dollars"] == pytest.approx(40 * (20 * 10 + 12 * 30) / 1e6 / 2)
    assert ledger["unsure_dollars"] == 0
    assert ledger["answered"] == 40
    assert sum(ledger["failed"].values()) == 2


def test_a_batch_under_way_is_read_by_the_next_run(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from ask_hostile import *\n"
        "ask(make_client(sys.argv[1], sys.argv[2], batch=True, batch_poll=0.05), 30)"
    )
    root = Path(__file__).resolve().parents[1]
    with Provider(polls=10**6) as provider:
        url = entry(provider, "openai")["url"]
        run = subprocess.Popen(
            [sys.executable, "-c", code, url, tmp_path / "s.sqlite"], cwd=root, stderr=subprocess.DEVNULL
        )
        while not provider.looks:
            assert run.poll() is None
        run.kill()
        run.wait()
        provider.polls = 0
        client = make_client(url, tmp_path / "s.sqlite", batch=True, batch_poll=0.01)
        assert client.store.ledger()["failed"] == {"sent": 30}
        assert ask(client, 50) == [7] * 50
        assert [len(batch["requests"]) for batch in provider.batches.values()] == [30, 20]
        assert set(provider.asked.values()) == {1}
    assert client.store.ledger()["failed"] == {}


def test_a_batch_whose_name_was_lost_on_the_way_is_found_again(tmp_path):
    with Provider(polls=0, lose_name=True) as provider:
        client = make_client(entry(provider, "openai")["url"], tmp_path / "s.sqlite", batch=True, batch_poll=0.01)
        with pytest.raises(JudgeError, match="connection cut.*run again"):
            ask(client, 10)
        assert ask(client, 10) == [7] * 10
        assert len(provider.batches) == 1
    assert client.store.ledger()["unsure_dollars"] == 0


def test_a_batch_that_never_answers_a_request_ends_in_one_sentence(tmp_path):
    class Stubborn(Provider):
        def _results(self, name, anthropic):
            self.fail = {"Grade answer 3."}
            return super()._results(name, anthropic)

    with Stubborn(polls=0) as provider:
        client = make_client(entry(provider, "openai")["url"], tmp_path / "s.sqlite", batch=True, batch_poll=0.01)
        with pytest.raises(JudgeError, match="1 requests stayed unanswered in batch after batch.*batch_expired"):
            ask(client, 10)
        assert len(provider.batches) == 3
    assert client.store.ledger()["answered"] == 9


def test_a_batch_holds_what_fits_under_the_cap(tmp_path):
    with Provider(polls=0) as provider:
        url = entry(provider, "openai")["url"]
        client = make_client(url, tmp_path / "s.sqlite", batch=True, batch_poll=0.01, max_dollars=0.02)
        with pytest.raises(JudgeError, match="cap of"):
            ask(client, 200)
        assert len(provider.batches) > 1
    assert client.store.ledger()["dollars"] <= 0.02


def test_an_allowance_spreads_requests_over_the_minute():
    now = [0.0]
    bucket = Allowance(60, clock=lambda: now[0])
    assert [bucket.take(1) for _ in range(10)] == [0] * 10  # a sixth of the minute at once
    assert [bucket.take(1) for _ in range(3)] == pytest.approx([1, 2, 3])
    now[0] += 60
    assert bucket.take(1) == 0
    assert bucket.take(100) == pytest.approx(1)  # waits until the bucket is full, since it can hold no more
    assert bucket.take(1) == pytest.approx(92)
    bucket.give_back(60)  # it used less than it might have
    assert bucket.take(1) == pytest.approx(33)


def test_rate_limits_are_kept(tmp_path):
    with Provider() as provider:
        settings = entry(provider, "openai", requests_per_minute=1200)
        client = make_client(settings.pop("url"), tmp_path / "s.sqlite", 64, **settings)
        start = time.monotonic()
        assert ask(client, 230) == [7] * 230
        assert time.monotonic() - start > 1.4  # 200 at once, 30 more at 20 per second


def test_grades_are_read_alike_everywhere():
    assert grade_in(Answer({"message": {"content": "<think>[[9]]</think>[[4]]"}})) == 4
