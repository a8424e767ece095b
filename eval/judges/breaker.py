"""A circuit breaker: an endpoint that only fails is asked by one request at a time, then no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from eval.judges.transport import Fault

# With 10 % of independent faults, five in a row come once in 100,000 requests.
TRIP = 5  # faults in a row after which requests go one at a time
PROBES = 6  # of those, with doubling waits between them: two minutes from a first wait of 2 s
LONGEST_WAIT = 60.0  # seconds between two tries


class Broken(Exception):
    """Nothing was answered any more; `fault` is the last one."""

    def __init__(self, fault: Fault, in_a_row: int) -> None:
        super().__init__(str(fault))
        self.fault, self.in_a_row = fault, in_a_row


class Breaker:
    """Counts faults in a row over all requests.

    After the first fault at most the requests under way, `TRIP` - 1 more and `PROBES` single ones are sent before it
    gives up.
    """

    def __init__(self, first_wait: float, pause: Callable[[float], Awaitable[None]]) -> None:
        """Start.

        Args:
            first_wait: seconds before the first single request; then doubled.
            pause: waits for so many seconds, or less once the run is to stop.
        """
        self._first_wait, self._pause = first_wait, pause
        self._alone = asyncio.Lock()
        self._fault: Fault | None = None
        self._in_a_row = self._probes = 0

    @property
    def is_open(self) -> bool:
        """Whether requests go one at a time."""
        return self._in_a_row >= TRIP

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Around one try: at once while the endpoint works, else alone (it then gives True) and after a wait.

        Raises:
            Broken: all single requests have failed.
        """
        if not self.is_open:
            yield False
            return
        async with self._alone:
            if self.is_open:  # the request before this one may have been answered
                if self._probes >= PROBES and self._fault is not None:
                    raise Broken(self._fault, self._in_a_row)
                await self._pause(self._wait())
                self._probes += 1
            yield True

    def _wait(self) -> float:
        asked = self._fault.retry_after if self._fault else None
        doubled = min(LONGEST_WAIT, self._first_wait * 2**self._probes)
        return max(asked or 0.0, doubled * random.uniform(0.75, 1.0))

    def answered(self) -> None:
        """The endpoint works."""
        self._fault, self._in_a_row, self._probes = None, 0, 0

    def failed(self, fault: Fault) -> None:
        """One more try brought nothing."""
        self._fault = fault
        self._in_a_row += 1
