"""Measure the judgments per second that a judge's client gets from an endpoint, compared with a bare aiohttp client.

    python benchmarks/judge_throughput.py [--latency 0.2] [--concurrency 8 64 256] [--seconds 8]

The endpoint is a separate process on loopback that answers every request after `--latency` seconds, so the limit is
concurrency / latency requests per second. Both clients send the same requests in the same run; ours also writes every
request and every answer to the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval.judges.client import Client
from eval.judges.config import JudgeConfig
from eval.judges.store import Store
from eval.judges.wire import body_of

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "model": "bench",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rating: [[7]]"}}
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 10, "total_tokens": 310},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER


class Connection(asyncio.Protocol):
    """One connection of the endpoint; answers each request after the latency."""

    latency = 0.2

    def connection_made(self, transport: Any) -> None:
        """Remember where to answer."""
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer each request once it has been received completely."""
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found:
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            if len(body) >= int(length.split()[1]):
                self.received = b""
                asyncio.get_running_loop().call_later(self.latency, self.transport.write, RESPONSE)


async def serve(latency: float) -> None:
    """Run the endpoint and print its port."""
    Connection.latency = latency
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def ask_bare(url: str, bodies: list[dict[str, Any]], concurrency: int) -> None:
    """Send the requests with aiohttp alone: parse only JSON and store nothing."""
    waiting = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def work() -> None:
            for body in waiting:
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    await response.json()

        await asyncio.gather(*(work() for _ in range(concurrency)))


def ask_ours(url: str, bodies: list[dict[str, Any]], concurrency: int, folder: str) -> None:
    """Send the requests with the judge's client, using a new store."""
    config = JudgeConfig(kind="openai", model="bench", url=url, concurrency=concurrency, timeout=5.0, attempts=1)
    client = Client(config, Store(Path(folder) / f"{concurrency}-{time.monotonic_ns()}.sqlite"))
    client.ask(bodies)
    assert client.store.ledger()["failed"] == {}  # no request timed out


def main() -> None:
    """Command line: print one line per concurrency."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds the endpoint takes per answer")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--seconds", type=float, default=8.0, help="duration per client at the endpoint's limit")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per client; medians are compared")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.latency))
        return
    os.environ.pop("OPENAI_API_KEY", None)
    command = [sys.executable, __file__, "--serve", "--latency", str(args.latency)]
    endpoint = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert endpoint.stdout is not None
    url = f"http://127.0.0.1:{endpoint.stdout.readline().strip()}/v1"
    text = "Judge this answer. " * 60  # about 300 tokens
    try:
        with tempfile.TemporaryDirectory() as folder:
            for concurrency in args.concurrency:
                compare(url, text, concurrency, args, folder)
    finally:
        endpoint.kill()
        endpoint.wait()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def compare(url: str, text: str, concurrency: int, args: argparse.Namespace, folder: str) -> None:
    """Time both clients in turn and print the medians."""
    config = JudgeConfig(kind="openai", model="bench", url=url)
    count = max(concurrency, int(args.seconds * concurrency / args.latency))
    bodies = [body_of(config, [{"role": "user", "content": f"{i} {text}"}], {"max_tokens": 64}) for i in range(count)]
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(args.rounds):
        start = time.monotonic()
        asyncio.run(ask_bare(url, bodies, concurrency))
        rates["bare"].append(count / (time.monotonic() - start))
        start = time.monotonic()
        ask_ours(url, bodies, concurrency, folder)
        rates["ours"].append(count / (time.monotonic() - start))
    bare, ours = (sorted(rates[name])[args.rounds // 2] for name in ("bare", "ours"))
    print(
        f"concurrency {concurrency:4}: limit {concurrency / args.latency:6.0f}/s, bare aiohttp {bare:6.0f}/s, "
        f"ours {ours:6.0f}/s = {ours / bare:.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
