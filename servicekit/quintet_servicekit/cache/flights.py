"""Single flight of streams: those who ask for the same answer at once share one.

    flights = Flights("completions", Codec(Event.SerializeToString, Event.FromString),
                      settings.cache, remote)
    async with aclosing(flights.join(key, start)) as events:
        async for event in events: ...

What holds for callers:

- The key holds everything that the answer depends on, and how fresh it must be: what a
  follower gets may have begun before it came. Only callers of one tenant share.
- `start` looks into the cache once more before it computes, and puts its result there
  before it ends: else a caller who looked just before it was there computes it again.
- `start` bounds its own time by the service's limit, not by its caller's deadline:
  others may have more. A caller whose time is up leaves, by closing the iterator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from quintet_servicekit.cache import metrics
from quintet_servicekit.cache.keys import owned
from quintet_servicekit.cache.models import Codec
from quintet_servicekit.cache.once import OF_THE_CALLER
from quintet_servicekit.cache.relay import (
    ENTRY_BYTES,
    Following,
    LeaderLostError,
    Publisher,
    follow,
    lead_or_follow,
)
from quintet_servicekit.cache.remote import Remote
from quintet_servicekit.cache.settings import CacheSettings
from quintet_servicekit.errors import Reason, ServiceError

E = TypeVar("E")

Start = Callable[[], AsyncGenerator[E]]
"""Computes the events of an answer; it is closed when nobody waits for them any more."""


class _Flight(Generic[E]):
    """The events of one stream so far, those too old for `max_bytes` excepted."""

    def __init__(self, max_bytes: int) -> None:
        self.task: asyncio.Task[None] | None = None
        self.subscribers = 0
        self.ended = False
        self.error: Exception | None = None
        self._events: list[tuple[E, int]] = []
        self._dropped = 0
        self._bytes = 0
        self._max_bytes = max_bytes
        self._changed = asyncio.Event()
        self._had = 0
        """Number of events that the quickest reader has had."""
        self._read = asyncio.Event()

    @property
    def count(self) -> int:
        return self._dropped + len(self._events)

    @property
    def whole(self) -> bool:
        """Whether it can still be followed from its first event."""
        return not self._dropped

    async def append(self, event: E, size: int) -> None:
        """Add an event. Where that is too much it waits until the quickest reader has had
        the oldest, and drops those then, whoever else has not."""
        self._events.append((event, size))
        self._bytes += size + ENTRY_BYTES
        self._wake()
        while self._bytes > self._max_bytes and len(self._events) > 1:
            if self._had > self._dropped:
                self._bytes -= self._events.pop(0)[1] + ENTRY_BYTES
                self._dropped += 1
            else:
                self._read.clear()
                await self._read.wait()

    def end(self, error: Exception | None) -> None:
        if not self.ended:
            self.ended, self.error = True, error
            self._wake()

    async def more_than(self, place: int) -> bool:
        """Wait for the event number `place`; false if the stream ends before it.

        Raises the stream's error after its last event, and OVERLOADED when that event
        has been dropped because its reader was too slow.
        """
        while place >= self.count:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return False
            await self._changed.wait()
        if place < self._dropped:
            raise ServiceError(Reason.OVERLOADED, "the stream was read too slowly")
        return True

    def event(self, place: int) -> E:
        """Return the event number `place`, which is there."""
        if place >= self._had:
            self._had = place + 1
            self._read.set()
        return self._events[place - self._dropped][0]

    def _wake(self) -> None:
        # A new one each time: who waits on the old one reads on, at its own pace.
        self._changed.set()
        self._changed = asyncio.Event()


class Flights(Generic[E]):
    """Streams in flight, by key.

    A stream is computed in a task of its own: the caller who started it may leave, or
    read slowly, and the others go on. Each gets all events from the first. When the
    last one has left the work is cancelled. At most `settings.max_value_bytes` of a
    stream's events are kept, for as long as it flies: a longer one goes on at the pace of
    its quickest reader, and who falls behind by more ends with OVERLOADED.
    """

    def __init__(
        self,
        tier: str,
        codec: Codec[E],
        settings: CacheSettings,
        remote: Remote | None = None,
        *,
        schema: int = 1,
    ) -> None:
        self._tier = tier
        self._codec = codec
        self._settings = settings
        self._remote = remote
        self._schema = schema
        self._flights: dict[str, _Flight[E]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(
        self, key: str, start: Start[E], *, across_replicas: bool = True
    ) -> AsyncGenerator[E]:
        """Yield the events of the stream in flight for `key` in this process or, where
        `across_replicas`, in another, or else those of `start`. Close the iterator to leave.

        Raises what the stream's computation raised. Where that was only its own caller's
        lack of time, or its replica died: computes anew if nothing has been yielded, and
        raises `ServiceError` DEPENDENCY_UNAVAILABLE, to be tried again, if something has.
        """
        key = owned(key)
        while True:
            flight = self._flights.get(key)
            led = flight is None or not flight.whole
            if flight is None or not flight.whole:
                flight = self._begin(key, start, across_replicas)
            else:
                metrics.FLIGHTS.labels(self._tier, "joined").inc()
            flight.subscribers += 1
            place = 0
            try:
                while await flight.more_than(place):
                    yield flight.event(place)
                    place += 1
                return
            except LeaderLostError as error:
                raise _lost() from error
            except ServiceError as error:
                if led or error is not flight.error or error.reason not in OF_THE_CALLER:
                    raise
                if place:
                    raise _lost() from error
            finally:
                await self._leave(key, flight)

    def _begin(self, key: str, start: Start[E], across_replicas: bool) -> _Flight[E]:
        flight: _Flight[E] = _Flight(self._settings.max_value_bytes)
        work = self._fly(key, flight, start, across_replicas)
        flight.task = task = asyncio.create_task(work, name="cache flight")
        self._flights[key] = flight
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _leave(self, key: str, flight: _Flight[E]) -> None:
        flight.subscribers -= 1
        if flight.subscribers or flight.task is None or flight.task.done():
            return
        self._forget(key, flight)
        flight.task.cancel()
        await asyncio.wait({flight.task})

    async def _fly(
        self, key: str, flight: _Flight[E], start: Start[E], across_replicas: bool
    ) -> None:
        remote = self._remote if across_replicas else None
        error: Exception | None = None
        try:
            if remote is None:
                await self._lead(flight, start, None)
            else:
                await self._fly_with_others(key, flight, start, remote)
        except asyncio.CancelledError:
            error = ServiceError(Reason.CANCELLED, "nobody waited for the stream any more")
            raise
        except Exception as caught:
            error = caught
        finally:
            # Before its followers hear of the end: who asks next must not meet it.
            self._forget(key, flight)
            flight.end(error)

    async def _fly_with_others(
        self, key: str, flight: _Flight[E], start: Start[E], remote: Remote
    ) -> None:
        name = f"{self._tier}:{self._schema}:{key}"
        lost = ""
        while True:
            role = await lead_or_follow(remote, name, self._settings.lease_seconds)
            if not isinstance(role, Following):
                publisher = None
                if role.lease is not None:
                    limit = self._settings.max_value_bytes
                    publisher = Publisher(remote, name, role.lease, max_bytes=limit)
                await self._lead(flight, start, publisher)
                return
            metrics.FLIGHTS.labels(self._tier, "attached").inc()
            try:
                async with aclosing(follow(remote, name, role.token)) as events:
                    async for raw in events:
                        await flight.append(self._decoded(raw), len(raw))
                return
            except LeaderLostError:
                if flight.count:
                    raise
                if role.token == lost:
                    # Its lease still stands, but its stream can't be followed.
                    await self._lead(flight, start, None)
                    return
                lost = role.token

    async def _lead(self, flight: _Flight[E], start: Start[E], publisher: Publisher | None) -> None:
        metrics.FLIGHTS.labels(self._tier, "led").inc()
        try:
            async with aclosing(start()) as events:
                async for event in events:
                    raw = self._codec.encode(event)
                    if publisher is not None:
                        publisher.event(raw)
                    await flight.append(event, len(raw))
            if publisher is not None:
                publisher.end()
        except ServiceError as error:
            if publisher is not None and error.reason not in OF_THE_CALLER:
                publisher.failed(error)
            raise
        finally:
            if publisher is not None:
                publisher.left()

    def _decoded(self, raw: bytes) -> E:
        try:
            return self._codec.decode(raw)
        except Exception as error:
            raise LeaderLostError("an event of the leader can't be read") from error

    def _forget(self, key: str, flight: _Flight[E]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel all streams and wait until their work has ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))


def _lost() -> ServiceError:
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "whoever computed this answer is gone; ask again",
        metadata={"dependency": "leader"},
    )
