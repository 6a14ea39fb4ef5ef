"""Single flight of values: those who ask for the same key at once share one computation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from quintet_servicekit.errors import Reason, ServiceError

R = TypeVar("R")

OF_THE_CALLER = (
    Reason.DEADLINE_EXCEEDED,
    Reason.CANCELLED,
    Reason.RATE_LIMITED,
    Reason.BUDGET_EXHAUSTED,
)
"""Failures of a leader that say nothing of the work: its caller had no more time, or has
asked too much."""


class _Flight(Generic[R]):
    def __init__(self) -> None:
        self.task: asyncio.Task[R] | None = None
        self.waiters = 0


class Once(Generic[R]):
    """Computations in flight, by key.

    A computation runs in a task of its own: who started it may leave while others wait.
    When the last one has left it is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[R]] = {}
        self._tasks: set[asyncio.Task[R]] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    async def join(self, key: str, compute: Callable[[], Coroutine[Any, Any, R]]) -> tuple[R, bool]:
        """Return the result of the computation in flight for `key`, or else of `compute`,
        and whether it was our own.

        Raises what the computation raised. One that failed because its own caller had no
        more time is started again for those who still wait.
        """
        while True:
            flight = self._flights.get(key)
            led = flight is None
            if flight is None:
                flight = self._start(key, compute)
            try:
                return await self._wait(key, flight), led
            except ServiceError as error:
                if led or error.reason not in OF_THE_CALLER:
                    raise
            except asyncio.CancelledError:
                us = asyncio.current_task()
                if led or us is None or us.cancelling() or key in self._flights:
                    raise

    def begin(self, key: str, compute: Callable[[], Coroutine[Any, Any, R]]) -> asyncio.Task[R]:
        """Start `compute` for nobody yet; it runs to its end. `key` must not be in flight."""
        flight = self._start(key, compute)
        flight.waiters = 1
        assert flight.task is not None
        return flight.task

    def forget(self, key: str) -> None:
        """Let the next caller for `key` start anew; who waits already goes on waiting."""
        self._flights.pop(key, None)

    def forget_all(self, prefix: str) -> None:
        """Let the next callers for all keys that begin with `prefix` start anew."""
        for key in [key for key in self._flights if key.startswith(prefix)]:
            del self._flights[key]

    def is_current(self, key: str) -> bool:
        """Whether the running task computes `key`, and has not been forgotten."""
        flight = self._flights.get(key)
        return flight is not None and flight.task is asyncio.current_task()

    def _start(self, key: str, compute: Callable[[], Coroutine[Any, Any, R]]) -> _Flight[R]:
        flight: _Flight[R] = _Flight()

        async def run() -> R:
            try:
                return await compute()
            finally:
                # Here, not in a callback: who asks next must not meet a flight that ended.
                self._end(key, flight)

        task = asyncio.create_task(run(), name="cache load")
        flight.task = task
        self._flights[key] = flight
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _wait(self, key: str, flight: _Flight[R]) -> R:
        assert flight.task is not None
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._end(key, flight)
                flight.task.cancel()

    def _end(self, key: str, flight: _Flight[R]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel what runs and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
