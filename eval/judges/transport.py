"""Requests over HTTP: many connections at once, one deadline each, and no body larger than an answer can be."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

LARGEST_BODY = 4 << 20  # bytes; 32,000 tokens of escaped text have about 300 KB


class Fault(Exception):
    """A try that brought no answer.

    Attributes:
        outcome: a few words for the ledger, such as "429" or "timeout".
        words: what the endpoint said about it.
        may_have_cost: whether the endpoint may have answered and billed anyway.
        retry_after: seconds that the endpoint asks for.
    """

    def __init__(
        self, outcome: str, words: str = "", may_have_cost: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(outcome)
        self.outcome, self.words, self.may_have_cost, self.retry_after = outcome, words, may_have_cost, retry_after

    def __str__(self) -> str:
        """The outcome, and the endpoint's words where it said something."""
        return f"{self.outcome}: {self.words}" if self.words else self.outcome


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """One session for all requests; its connections are kept open."""

    def __init__(self, connections: int, timeout: float, largest_body: int = LARGEST_BODY) -> None:
        """Start; use it as an asynchronous context.

        Args:
            connections: at most, at once.
            timeout: seconds for one request from sending to the last byte.
            largest_body: bytes; a larger answer is cut off and is a fault.
        """
        self._connections, self._timeout, self._largest = connections, timeout, largest_body
        self._proxies = urllib.request.getproxies()

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline of our own, see `send`
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a few bytes can decompress to gigabytes
        )
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], data: Any = None, largest: int | None = None
    ) -> Response:
        """Send a request and read all of its answer. A redirection is an answer: the key goes nowhere else.

        Raises:
            Fault: no connection, the connection was cut, it took too long, or the answer is too large.
        """
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    proxy=self._proxy(url),
                ) as response,
            ):
                body = await self._read(response, largest or self._largest)
                return Response(response.status, response.headers, body)
        except TimeoutError:
            raise Fault("timeout", f"no answer within {self._timeout:g} s", may_have_cost=True) from None
        except aiohttp.ClientConnectorError as error:
            raise Fault("no connection", str(error.os_error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("connection cut", type(error).__name__, may_have_cost=True) from None

    def _proxy(self, url: str) -> str | None:
        if not self._proxies:
            return None
        parsed = URL(url)
        return None if urllib.request.proxy_bypass(parsed.host or "") else self._proxies.get(parsed.scheme)

    async def _read(self, response: aiohttp.ClientResponse, largest: int) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "deflate", ""):
            raise Fault("invalid answer", f"content in the encoding {encoding[:40]!r}", may_have_cost=True)
        inflate = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None  # either header
        parts, size = [], 0
        async for chunk in response.content.iter_any():
            if inflate is not None:
                try:
                    chunk = inflate.decompress(chunk, largest + 1 - size)
                except zlib.error:
                    raise Fault("invalid answer", "content that cannot be decompressed", may_have_cost=True) from None
            size += len(chunk)
            parts.append(chunk)
            if size > largest:
                response.close()  # the rest is not read
                raise Fault("invalid answer", f"more than {largest >> 20} MB", may_have_cost=True)
        return b"".join(parts)


def encode(body: Mapping[str, Any]) -> bytes:
    """A request's bytes: JSON in ASCII, which any text can be written in."""
    return json.dumps(body).encode()


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
