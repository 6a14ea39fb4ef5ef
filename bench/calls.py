"""Times calls, and names the empty one that some are held against."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable

from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb

Call = Callable[[], Awaitable[object]]

COUNT_ECHO = (
    "quintet.tokenizer.v1.TokenizerService",
    "Count",
    b64encode(pb.CountResponse(model="all-MiniLM-L6-v2", counts=[12]).SerializeToString()).decode(),
)
"""Arguments of the worker `echo_server` that answers as Count of one text does."""


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
