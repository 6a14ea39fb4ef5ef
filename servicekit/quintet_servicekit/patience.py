"""Bounds waits of one length with one timer for all of them: one for each would be a good part
of what a call costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context

from quintet_servicekit.errors import Reason, ServiceError


class Patience:
    """Waits that may each take `seconds`, and end with `ServiceError` DEADLINE_EXCEEDED
    `otherwise`, which blames the caller. Of one event loop."""

    def __init__(self, seconds: float, otherwise: str) -> None:
        self._seconds = seconds
        self._otherwise = otherwise
        # As they began, and so as they end.
        self._waits: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Bound what is within."""
        try:
            async with asyncio.timeout(None) as timeout:
                at = asyncio.get_running_loop().time() + self._seconds
                self._waits[timeout] = at
                if self._timer is None:
                    self._set_timer(at)
                try:
                    yield
                finally:
                    self._waits.pop(timeout, None)
        except TimeoutError as error:
            raise ServiceError(
                Reason.DEADLINE_EXCEEDED, self._otherwise, metadata={"hop": "caller"}
            ) from error

    def _set_timer(self, at: float) -> None:
        # In no call's context, which it may outlive.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(at, self._end_late_ones, context=Context())

    def _end_late_ones(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._waits:
            timeout, at = next(iter(self._waits.items()))
            if at > now:
                self._set_timer(at)
                return
            del self._waits[timeout]
            timeout.reschedule(now)
