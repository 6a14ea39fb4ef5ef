"""How late this process itself was: what a busy machine adds to every time that is taken."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PERIOD = 0.005


class Heartbeat:
    """Wakes every 5 ms and notes by how much it was late."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._late: list[float] = []

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            due = time.monotonic() + _PERIOD
            await asyncio.sleep(_PERIOD)
            now = time.monotonic()
            self._times.append(now)
            self._late.append(now - due)

    def late(self, since: float, until: float) -> float:
        """Return the longest that this event loop stood still in that time, in seconds."""
        first, last = bisect_left(self._times, since), bisect_left(self._times, until)
        # The beat after it was the one that was held up at its end.
        return max(self._late[first : last + 1], default=0.0)


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    """Yield one that beats."""
    it = Heartbeat()
    beating = asyncio.create_task(it.beat())
    try:
        yield it
    finally:
        beating.cancel()
