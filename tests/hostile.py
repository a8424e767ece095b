"""An endpoint on loopback that misbehaves as told, bills what it serves, and counts everything.

It serves from its event loop in a thread, or with `python tests/hostile.py MODE SECONDS` in a process, at most
`most_requests` requests and for at most `seconds`.
"""

import asyncio
import functools
import gzip
import json
import random
import sys
import threading
import zlib
from collections import Counter

KEY = "sk-hostile-0123456789"
PRICE = {"input": 10.0, "output": 30.0}  # dollars per million tokens
OTHER_MODEL = "something-else-7b"
GRADE = "A fair answer. Rating: [[7]]"
QUOTA = {"error": {"message": "You exceeded your current quota.", "type": "insufficient_quota"}}


def answer(content=GRADE, reason="stop", usage=None, model="hostile", **message):
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}
    return {"id": "x", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}


def odd(document, **places):
    """JSON with a placeholder replaced by text that no encoder would write."""
    text = json.dumps(document)
    for mark, value in places.items():
        text = text.replace(f'"{mark}"', value)
    return text.encode()


# Modes whose answer is billed. Each is a document, or bytes; {} is replaced by the usage that the endpoint bills.
PAID = {
    "good": answer(),
    "parts": answer([{"type": "text", "text": "Fine. "}, {"type": "text", "text": "Rating: [[7]]"}]),
    "parts of thinking": answer([{"type": "thinking", "thinking": "[[9]]"}, {"type": "text", "text": "[[7]]"}]),
    "thinking in tags": answer("<think>Perhaps [[9]]?</think>\nRating: [[7]]"),
    "thinking without opening tag": answer("Perhaps [[9]]?</think>Rating: [[7]]"),
    "reasoning beside": answer(reasoning_content="Perhaps [[9]]?"),
    "empty": answer(""),
    "null content": answer(None),
    "thinking only": answer("<think>Perhaps [[9]]", "length"),
    "reasoning only": answer(None, "length", reasoning_content="Perhaps [[9]]?"),
    "refusal": answer(None, refusal="I cannot judge this."),
    "filtered": answer("", "content_filter"),
    "tool call": answer(None, "tool_calls", tool_calls=[{"id": "t", "type": "function"}]),
    "content a number": answer(7),
    "no grade": answer("I would give it seven."),
    "grade 95": answer("Rating: [[95]]"),
    "5,000 digits": answer(f"Rating: [[{'9' * 5000}]]"),
    "other model": answer(model=OTHER_MODEL),
    "negative usage": answer(usage={"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}),
    "usage in a list": answer(usage=[1, 2]),
    "usage of texts": answer(usage={"prompt_tokens": "many", "completion_tokens": [3]}),
    "usage of booleans": answer(usage={"prompt_tokens": True, "completion_tokens": True}),
    "usage of 10^30": answer(usage={"prompt_tokens": 10**30, "completion_tokens": 10**30}),
    "usage of 5,000 digits": odd(answer(usage={"prompt_tokens": "X", "completion_tokens": 1}), X="9" * 5000),
    "usage of zero": answer(usage={"prompt_tokens": 0, "completion_tokens": 0}),
    "usage of one": answer(usage={"prompt_tokens": 1, "completion_tokens": 1}),
    "usage missing": answer(usage="no"),
    "NaN and infinity": odd(answer(extra="X", more="Y"), X="NaN", Y="[Infinity, -Infinity, 1e999]"),
    "lone surrogate": odd(answer("X"), X=r'"\ud800 Rating: [[7]] \udfff"'),
    "key in escapes": odd(answer("X"), X='"' + KEY.replace("-", "\\u002d") + ' Rating: [[7]]"'),
    "deep nesting": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not JSON": b"<html>gateway</html>",
    "empty body": b"",
    "a list": b"[]",
    "no choices": odd({"choices": []}),
    "choices null": odd({"choices": None}),
    "choice a text": odd({"choices": ["Rating: [[7]]"]}),
    "message null": odd({"choices": [{"message": None}]}),
    "error of status 200": odd({"error": {"message": "upstream overloaded"}}),
    "not UTF-8": b"\xff\xfe\x00" * 10,
    "cut": None,
    "hang": None,
    "slow": None,
    "50 MB": None,
    "gzip bomb": None,
    "broken gzip": None,
}
# Modes that cost nothing: status, body, headers.
FREE = {
    "400 filtered": (400, {"error": {"message": "content management policy", "code": "content_filter"}}, {}),
    "401": (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {}),
    "404": (404, {"error": {"message": "no such model"}}, {}),
    "429": (429, {"error": {"message": "slow down"}}, {}),
    "429 Retry-After": (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
    "429 for a day": (429, {"error": {"message": "daily limit"}}, {"Retry-After": "86400"}),
    "429 odd Retry-After": (429, {"error": {"message": "slow down"}}, {"Retry-After": "nan"}),
    "quota": (429, QUOTA, {}),
    "quota in other words": (429, {"error": {"message": "You are out of credits."}}, {}),
    "500": (500, {"error": {"message": "oops"}}, {}),
    "503": (503, {"error": {"message": "overloaded"}}, {}),
    "529": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, {}),
    "redirection": (307, {}, {"Location": "http://127.0.0.1:9/elsewhere"}),
    "cut before the answer": (0, {}, {}),
    "no HTTP": (-1, {}, {}),
}
MODES = [*PAID, *FREE]


class Hostile:
    """Serves until closed.

    Attributes:
        url: its address, up to and including /v1.
        requests: how many arrived.
        did: mode -> count.
        bill: dollars charged, including for answers that never arrived.
        answered: request text -> number of good answers sent in full.
    """

    def __init__(self, mode="good", rate=1.0, otherwise="good", after=0, latency=0.0, seed=0, hang=20.0, limit=None,
                 most_requests=20_000, seconds=300.0):  # fmt: skip
        """Start.

        Args:
            mode: a mode, or a list of them to draw from.
            rate: share of requests that get it; the others get `otherwise`.
            after: number of requests that are served as `otherwise` first.
            latency: seconds before each answer.
            hang: seconds that the modes "hang" and "slow" take.
            limit: minimum seconds between two answers over all connections; None for no limit.
            most_requests: number of requests after which it stops serving.
            seconds: time after which it stops.
        """
        self.modes = [mode] if isinstance(mode, str) else mode
        self.rate, self.otherwise, self.after, self.latency, self.hang = rate, otherwise, after, latency, hang
        self.most_requests, self.seconds = most_requests, seconds
        self.requests, self.bill, self.did, self.answered = 0, 0.0, Counter(), Counter()
        self._random = random.Random(seed)
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)

    def _serve(self, ready):
        asyncio.set_event_loop(self._loop)

        async def start():
            self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512, limit=1 << 22)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
            self._loop.call_later(self.seconds, self._loop.stop)
            ready.set()

        self._loop.create_task(start())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _connection(self, reader, writer):
        try:
            while self.requests < self.most_requests:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(next(x for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")).split()[1])
                if not await self._act(json.loads(await reader.readexactly(length)), writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    def _mode(self):
        self.requests += 1
        hit = self.requests > self.after and self._random.random() < self.rate
        mode = self._random.choice(self.modes) if hit else self.otherwise
        self.did[mode] += 1
        return mode

    async def _act(self, body, writer):
        """Answer one request; return whether the connection stays open."""
        mode = self._mode()
        if self.latency:
            await asyncio.sleep(self.latency)
        if mode in FREE:
            status, document, headers = FREE[mode]
            if status == 0:
                return False
            if status < 0:
                writer.write(b"\x00\x01 no HTTP at all\r\n\r\n")
                return False
            return await self._send(writer, status, json.dumps(document).encode(), headers)
        usage = self._charge(body)
        if mode == "hang":
            await asyncio.sleep(self.hang)
            return False
        content = PAID[mode] if PAID[mode] is not None else answer()
        if isinstance(content, dict):
            content = {**content, "usage": content["usage"] if content["usage"] is not None else usage}
            content = odd({**content, "model": body["model"] if content["model"] == "hostile" else content["model"]})
        if mode == "cut":
            await self._send(writer, 200, content[:40], {"Content-Length": len(content)})
            return False
        if mode == "slow":
            await self._send(writer, 200, b"", {"Content-Length": len(content)})
            for byte in content:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(self.hang / len(content))
            return True
        if mode == "50 MB":
            await self._send(writer, 200, b"", {"Content-Length": 50 << 20})
            for _ in range(50):
                writer.write(b" " * (1 << 20))
                await writer.drain()
            return False
        if mode == "gzip bomb":
            return await self._send(writer, 200, bomb(), {"Content-Encoding": "gzip"})
        if mode == "broken gzip":
            return await self._send(writer, 200, gzip.compress(content)[:-30] + b"x" * 9, {"Content-Encoding": "gzip"})
        if b"[[7]]" in content:
            self.answered[body["messages"][-1]["content"]] += 1
        return await self._send(writer, 200, content, {})

    def _charge(self, body):
        prompt = sum(len(message["content"]) // 4 + 4 for message in body["messages"])
        completion = min(10, body.get("max_tokens", 10))
        self.bill += (prompt * PRICE["input"] + completion * PRICE["output"]) / 1e6
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def _send(self, writer, status, content, headers):
        lines = {"Content-Type": "application/json", "Content-Length": len(content), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Answer\r\n{head}\r\n".encode() + content)
        await writer.drain()
        return True


@functools.cache
def bomb():
    """A body of 100 KB that decompresses to 100 MB."""
    part = zlib.compressobj(wbits=31)
    blanks = b" " * (1 << 20)
    return b"".join(part.compress(blanks) for _ in range(100)) + part.flush()


if __name__ == "__main__":
    mode, seconds, latency = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    with Hostile(mode, seconds=seconds, latency=latency, most_requests=10**6) as server:
        print(server.url, flush=True)
        server._thread.join(seconds)
