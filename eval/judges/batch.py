"""Batch endpoints: half the price, answers within a day, and a run that may be stopped and started in between.

| | OpenAI-compatible, Azure | Anthropic |
| --- | --- | --- |
| sent | a file of requests (/files), then /batches | /messages/batches |
| looked at | /batches/ID until its status is final | /messages/batches/ID until processing has ended |
| read | its output and error files | its results_url |

A batch is in the store before it is sent, with the most that each of its requests can cost. A run that finds open
batches waits for them before it sends anything. One that was killed between sending and noting the endpoint's name of
the batch looks for it by our own name (OpenAI's metadata); Anthropic has no such field, so what was sent then stays
unsure money and is asked again.

Sources: platform.openai.com/docs/guides/batch; docs.anthropic.com/en/docs/build-with-claude/batch-processing.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from eval.judges.answers import InvalidAnswer, parse_body
from eval.judges.money import Size, size_of
from eval.judges.store import BatchRows, Cost, Intent, Outcome
from eval.judges.transport import LARGEST_BODY, Fault, Response
from metaapo.data import DataError

if TYPE_CHECKING:
    from eval.judges.client import Asking

Body = Mapping[str, Any]
MOST_REQUESTS = 10_000  # per batch; OpenAI allows 50,000, Anthropic 100,000
MOST_BYTES = 90 << 20  # per batch; OpenAI allows 200 MB, Anthropic 256 MB
LARGEST_RESULTS = 1 << 30  # bytes
FINAL = ("completed", "failed", "expired", "cancelled", "ended")
LOST = "lost in a batch"


async def ask_in_batches(asking: Asking, missing: Mapping[str, Body]) -> None:
    """Ask all of these requests, those of open batches first.

    Raises:
        JudgeError: as `Client.ask`; batches that are under way stay so, and the next run reads them.
        DataError: the endpoint has no batches, or failed too often.
    """
    batches = _Batches(asking, missing)
    for name, remote, rows in asking.store.open_batches():
        await batches.resume(name, remote, rows)
    while left := {key: body for key, body in missing.items() if key not in batches.answered}:
        sent = await batches.send(left)
        await batches.read(*sent)


class _Batches:
    """The batches of one run."""

    def __init__(self, asking: Asking, missing: Mapping[str, Body]) -> None:
        self._asking, self._config, self._store = asking, asking.config, asking.store
        self._bodies = missing
        self._base = asking.config.url.rstrip("/")
        self._anthropic = asking.config.api == "anthropic"
        self.answered: set[str] = set()
        self._tries: dict[str, int] = {}

    # -- sending ------------------------------------------------------------------------------------------------------

    async def send(self, left: Mapping[str, Body]) -> tuple[str, str, BatchRows]:
        """Send as many requests as fit into a batch and under the cap: our name, the endpoint's, and the requests."""
        chosen = await self._choose(left)
        name = uuid.uuid4().hex
        intents = [Intent(key, self._most(body)) for key, body in chosen.items()]
        rows = self._store.begin_batch(name, intents, chosen)
        remote = await self._create(name, chosen)
        self._store.name_batch(name, remote)
        print(f"judge {self._config.model}: batch {remote} of {len(rows)} requests is under way", file=sys.stderr)
        return name, remote, rows

    def _most(self, body: Body) -> float:
        return self._asking.prices.most(self._size(body))

    def _size(self, body: Body) -> Size:
        return size_of(body, self._config)

    async def _choose(self, left: Mapping[str, Body]) -> dict[str, Body]:
        from eval.judges.client import JudgeError

        ledger, cap = self._store.ledger(), self._config.max_dollars
        spent = ledger["dollars"] + ledger["unsure_dollars"]
        chosen: dict[str, Body] = {}
        size = 0
        for key, body in left.items():
            spent += self._most(body)
            size += len(json.dumps(body)) + 200
            if (cap is not None and spent > cap) or len(chosen) >= MOST_REQUESTS or size > MOST_BYTES:
                break
            chosen[key] = body
        if not chosen:
            raise JudgeError(self._asking.cap_reached(self._size(next(iter(left.values())))))
        return chosen

    async def _create(self, name: str, chosen: Mapping[str, Body]) -> str:
        if self._anthropic:
            requests = [{"custom_id": key, "params": dict(body)} for key, body in chosen.items()]
            created = await self._call("POST", f"{self._base}/messages/batches", json.dumps({"requests": requests}))
            return str(created.get("id"))
        path = urlsplit(self._base).path if self._config.api == "azure" else "/v1"
        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": f"{path}/chat/completions", "body": dict(body)})
            for key, body in chosen.items()
        ]
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", "\n".join(lines).encode(), filename=f"{name}.jsonl", content_type="application/jsonl")
        file = await self._call("POST", f"{self._base}/files", form)
        wanted = {
            "input_file_id": file.get("id"),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"name": name},
        }
        created = await self._call("POST", f"{self._base}/batches", json.dumps(wanted))
        return str(created.get("id"))

    async def resume(self, name: str, remote: str, rows: BatchRows) -> None:
        """Read a batch of an earlier run."""
        if not remote and not self._anthropic:
            listed = await self._call("GET", f"{self._base}/batches?limit=100")
            found = [b for b in listed.get("data") or [] if isinstance(b, dict) and _metadata(b).get("name") == name]
            remote = str(found[0].get("id")) if found else ""
        if not remote:
            print(
                f"judge {self._config.model}: a batch of {len(rows)} requests may have been sent by a run that was "
                "stopped; its cost stays in the ledger as unsure, and its requests are asked again",
                file=sys.stderr,
            )
            self._store.end_batch(name)
            return
        self._store.name_batch(name, remote)
        await self.read(name, remote, rows)

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, name: str, remote: str, rows: BatchRows) -> None:
        """Wait for a batch, store its answers, and settle what it did not answer."""
        folder = "messages/batches" if self._anthropic else "batches"
        url = f"{self._base}/{folder}/{remote}"
        while True:
            batch = await self._call("GET", url)
            if batch.get("processing_status" if self._anthropic else "status") in FINAL:
                break
            await self._asking.pause(self._config.batch_poll)
        unread = dict(rows)
        problems = []
        for places in self._results(batch, url):
            for line in (await self._fetch(places)).split(b"\n"):
                if line.strip():
                    problem = self._take(line, unread)
                    problems += [problem] if problem else []
        for row, _ in unread.values():  # never processed, so never billed
            self._asking.save(Outcome(row, LOST, Cost()))
        await self._asking.saved()
        self._store.end_batch(name)
        self._count_tries(rows, batch, problems)

    def _results(self, batch: Mapping[str, Any], url: str) -> Iterator[str]:
        """Where the results are; only at the endpoint itself, since the key goes there."""
        if self._anthropic:
            yield f"{url}/results"
            return
        for field in ("output_file_id", "error_file_id"):
            if isinstance(batch.get(field), str) and batch[field]:
                yield f"{self._base}/files/{batch[field]}/content"

    def _take(self, line: bytes, unread: BatchRows) -> str:
        """Store one result; returns what is wrong with it, "" if nothing."""
        from eval.judges.client import Refused

        try:
            result = parse_body(line, self._asking.key)
            key = result["custom_id"]
            row, body = unread[key]
            response = _response(result, self._anthropic)
        except (InvalidAnswer, KeyError, TypeError):
            return "a line that is no result"
        del unread[key]  # a request of another benchmark among them: its answer waits for it in the store
        try:
            answer, _ = self._asking.read(row, key, json.dumps(body), self._size(body), response)
        except Fault as fault:
            most = self._most(body) if fault.may_have_cost and response.status == 200 else 0.0
            self._asking.save(Outcome(row, fault.outcome, Cost(unsure_dollars=most)))
            return str(fault)
        except Refused as refusal:
            self._asking.save(Outcome(row, "refused", Cost()))
            if key in self._bodies:
                self.answered.add(key)
                self._asking.note_refusal(key, str(refusal))
            return ""
        if key in self._bodies:
            self.answered.add(key)
            self._asking.note(key, answer)
        return ""

    def _count_tries(self, rows: Mapping[str, int], batch: Mapping[str, Any], problems: list[str]) -> None:
        """End the run where the same requests fail batch after batch."""
        from eval.judges.client import JudgeError

        for key in rows:
            if key in self._bodies and key not in self.answered:
                self._tries[key] = self._tries.get(key, 0) + 1
        if any(tries >= min(3, self._config.attempts) for tries in self._tries.values()):
            said = json.dumps(batch.get("errors") or problems[-1:] or batch.get("status"))
            raise JudgeError(
                f"judge {self._config.model}: {len(self._tries)} requests stayed unanswered in batch after batch "
                f"({said[:300]}); run again: what is answered is kept"
            )

    # -- talking ------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, url: str, data: Any = None) -> dict[str, Any]:
        """One request about a batch, tried again where that can help."""
        response = await self._send(method, url, data)
        try:
            document = parse_body(response.body, self._asking.key)
        except InvalidAnswer:
            document = None
        if not isinstance(document, dict):
            raise DataError(f"judge {self._config.model}: {url} answered no JSON object; expected a batch endpoint")
        return document

    async def _fetch(self, url: str) -> bytes:
        return (await self._send("GET", url, None, LARGEST_RESULTS)).body

    async def _send(self, method: str, url: str, data: Any, largest: int = LARGEST_BODY) -> Response:
        from eval.judges.client import JudgeError, Refused

        headers = self._asking.headers
        if isinstance(data, aiohttp.FormData):
            headers = {name: value for name, value in headers.items() if name != "Content-Type"}
        if self._config.api == "azure":
            url += ("&" if "?" in url else "?") + f"api-version={self._config.api_version or '2024-10-21'}"
        for tries in range(1, self._config.attempts + 1):
            try:
                response = await self._asking.transport.send(method, url, headers, data, largest)
                if response.status != 200:
                    self._asking.raise_for(response)
                return response
            except Refused as refusal:
                raise JudgeError(f"judge {self._config.model}: {url} answered {refusal}; correct the entry") from None
            except Fault as fault:
                # Creating a batch again could pay for it twice: the next run looks for it first.
                creates = method == "POST" and url.split("?")[0].endswith("/batches")
                if tries == self._config.attempts or (creates and fault.may_have_cost):
                    raise JudgeError(f"judge {self._config.model}: {url}: {fault}; run again") from None
                await self._asking.pause(self._asking.wait(tries, fault))
        raise AssertionError("either returned or raised")


def _metadata(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    return batch["metadata"] if isinstance(batch.get("metadata"), dict) else {}


def _response(result: Mapping[str, Any], anthropic: bool) -> Response:
    """A result as if it had come by itself.

    Raises:
        KeyError: it is no result.
    """
    if anthropic:
        inner = result["result"]
        if inner["type"] == "succeeded":
            return Response(200, {}, json.dumps(inner["message"]).encode())
        error = inner.get("error") or {}
        said = json.dumps({"error": {"message": json.dumps(error) if error else str(inner["type"])}}).encode()
        return Response(400 if b"invalid_request" in said else 503, {}, said)
    response = result.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return Response(response["status_code"], {}, json.dumps(response.get("body")).encode())
    return Response(503, {}, json.dumps({"error": result.get("error") or "no response"}).encode())
