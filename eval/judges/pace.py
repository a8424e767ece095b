"""Requests and tokens per minute, kept below what an endpoint allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST = 1 / 6  # of a minute's allowance that may be used at once


class Allowance:
    """A bucket that fills with time: `per_minute` units, a sixth of it at once."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, per_minute * BURST)
        self._level = self._size
        self._clock, self._at = clock, clock()

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now

    def take(self, units: float) -> float:
        """Take units, more than there are if need be.

        Returns:
            seconds to wait before they may be used.
        """
        self._fill()
        need = min(units, self._size)  # a request larger than the bucket waits until it is full
        wait = max(0.0, need - self._level) / self._rate
        self._level -= units
        return wait

    def give_back(self, units: float) -> None:
        """Return what was taken and not used (or, negative, take what was used beyond it)."""
        self._level = min(self._size, self._level + units)


class Pace:
    """Both limits of a judge; 0 means none."""

    def __init__(
        self, requests_per_minute: float, tokens_per_minute: float, pause: Callable[[float], Awaitable[None]]
    ) -> None:
        self._requests = Allowance(requests_per_minute) if requests_per_minute else None
        self._tokens = Allowance(tokens_per_minute) if tokens_per_minute else None
        self._pause = pause

    async def wait(self, tokens: float) -> None:
        """Wait until a request of so many tokens, its answer's most included, may be sent."""
        waits = [self._requests.take(1)] if self._requests else []
        waits += [self._tokens.take(tokens)] if self._tokens else []
        if waits and max(waits) > 0:
            await self._pause(max(waits))
        elif waits:
            await asyncio.sleep(0)

    def used(self, asked: float, used: float) -> None:
        """Correct what a request was thought to take by what it took."""
        if self._tokens:
            self._tokens.give_back(asked - used)
