"""Times calls."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable

Call = Callable[[], Awaitable[object]]


async def p50_milliseconds(call: Call, calls: int) -> float:
    """Return the median time of `calls` calls, one after the other."""
    waits = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        waits.append((time.perf_counter() - began) * 1000)
    return statistics.median(waits)


async def per_second(call: Call, seconds: float, callers: int) -> float:
    """Return the calls a second of several callers, each of which waits for its answer."""
    done = itertools.count()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            await call()
            next(done)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return next(done) / (time.perf_counter() - began)
