"""A bounded pool of threads for work that would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import Gauge

from quintet_servicekit.errors import Reason, ServiceError

T = TypeVar("T")

_CALLS = Gauge(
    "quintet_executor_calls", "Blocking calls that run on a thread or wait for one.", ("executor",)
)
_MOST = Gauge(
    "quintet_executor_calls_max",
    "Blocking calls that may run or wait; more are refused.",
    ("executor",),
)


class BoundedExecutor:
    """Runs blocking functions on `threads` threads with at most `queue` waiting.

    A caller who is cancelled while waiting leaves the queue at once; a function
    that has begun runs to its end.
    """

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._name = name
        self._limit = threads + queue
        self._admitted = 0
        self._calls = _CALLS.labels(name)
        _MOST.labels(name).inc(self._limit)

    @property
    def admitted(self) -> int:
        """Number of calls that are running or waiting."""
        return self._admitted

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Return `function(*args)`, run on one of the threads.

        Raises `ServiceError` OVERLOADED when the queue is full.
        """
        if self._admitted >= self._limit:
            raise ServiceError(Reason.OVERLOADED, f"the queue of {self._name} is full")
        future = self._pool.submit(function, *args)
        # Counted until the work itself ends, not until its caller leaves: a
        # running function still holds its thread.
        self._admitted += 1
        self._calls.inc()
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._admitted -= 1
        self._calls.dec()

    async def close(self) -> None:
        """Wait for running work and end the threads; waiting work is dropped."""
        _MOST.labels(self._name).dec(self._limit)
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
