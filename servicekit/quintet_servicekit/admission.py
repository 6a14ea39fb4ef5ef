"""Which calls a server takes on, and which it refuses before they cost anything.

Questions are refused while as many are under way as the adaptive limit allows. Bulk calls
have a share of it, in which they wait in line for their turn: an ingest is slowed down, not
turned away. docs/overload.md tells it for operators.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter, Gauge

from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.limiter import AdaptiveLimit
from quintet_servicekit.priority import Priority
from quintet_servicekit.settings import AdmissionSettings

_LIMIT = Gauge("quintet_admission_limit", "Calls that may be under way.", ("priority",))
_IN_FLIGHT = Gauge("quintet_admission_in_flight", "Calls under way.", ("priority",))
_WAITING = Gauge("quintet_admission_waiting", "Bulk calls in line.")
_REFUSED = Counter("quintet_admission_refused_total", "Calls refused.", ("priority",))

GOOD_SHARE = 0.5
"""Share of its caller's deadline that a call may take and be good. Calls differ: where one
in ten takes half of it, one in a hundred stays within it."""
LOG_SECONDS = 1.0
"""Least time between two log lines about refusals."""


class Place:
    """A place that a call holds until it ends."""

    def __init__(self, limit: AdaptiveLimit | None, good_seconds: float, beside: int) -> None:
        self._limit = limit
        self._good_seconds = good_seconds
        self._beside = beside
        self._began_at = time.monotonic()

    @classmethod
    def unlimited(cls) -> Place:
        """Return the place of a call that tells nothing of how long questions wait."""
        return cls(None, 1.0, 0)

    def answered(self) -> None:
        """Note the call's answer, or a stream's first message; later ones tell nothing."""
        self._sample(time.monotonic())

    def given_up(self) -> None:
        """Note that the call ends without an answer. Whose caller has left early tells
        nothing."""
        now = time.monotonic()
        if now - self._began_at > self._good_seconds:
            self._sample(now)

    def _sample(self, now: float) -> None:
        if self._limit is None:
            return
        wait = (now - self._began_at) / self._good_seconds
        self._limit.sample(began_at=self._began_at, now=now, wait=wait, beside=self._beside)
        self._limit = None


class Admission:
    """The admission to one server, of at most `most` calls at once."""

    def __init__(self, settings: AdmissionSettings, *, most: int) -> None:
        self._settings = settings
        self._limit = AdaptiveLimit(least=settings.least_calls, most=most)
        self._bulk = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._refused = {priority: _REFUSED.labels(priority) for priority in Priority}
        self._logged_at = 0.0
        self._unlogged = 0
        _LIMIT.labels(Priority.QUESTION).set_function(lambda: self.limit)
        _LIMIT.labels(Priority.BULK).set_function(lambda: self.bulk_limit)
        _IN_FLIGHT.labels(Priority.QUESTION).set_function(lambda: self.in_flight - self._bulk)
        _IN_FLIGHT.labels(Priority.BULK).set_function(lambda: self._bulk)
        _WAITING.set_function(lambda: len(self._line))

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return self._limit.in_flight

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return self._limit.limit

    @property
    def bulk_limit(self) -> int:
        """Bulk calls that may be under way."""
        share = int(self._settings.bulk_share * self._limit.limit)
        return max(1, min(share, self._settings.bulk_calls))

    def is_full(self, priority: Priority) -> bool:
        """Whether a call would be refused if it came now."""
        if priority is Priority.BULK:
            return len(self._line) >= self._settings.bulk_waiting and not self._bulk_may_begin()
        return self._limit.is_reached

    def count_refusal(self, priority: Priority) -> None:
        """Count a call that is refused; a log line in some tells of them."""
        self._refused[priority].inc()
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            telemetry.logger().warning(
                "overloaded",
                refused=self._unlogged,
                limit=self.limit,
                in_flight=self.in_flight,
                waiting=len(self._line),
            )
            self._logged_at, self._unlogged = now, 0

    def overloaded(self) -> ServiceError:
        """Return the error of a call that is refused."""
        return ServiceError(
            Reason.OVERLOADED,
            "the service has as much to do as it can",
            retry_after=self._settings.retry_seconds,
        )

    @asynccontextmanager
    async def place(self, priority: Priority, remaining: float | None) -> AsyncIterator[Place]:
        """Hold a place for a call; `remaining` are the seconds of its caller's deadline.

        Raises `ServiceError` OVERLOADED when there is none; a bulk call waits for one.
        """
        if priority is Priority.BULK:
            await self._bulk_turn()
            try:
                yield Place.unlimited()
            finally:
                self._end_bulk()
            return
        if self._limit.is_reached:
            raise self._refusal(priority)
        patience = self._settings.patience_seconds
        longest = patience if remaining is None else min(remaining, patience)
        # Whoever has so little time is in haste; that it was not enough tells of no queue.
        told = self._limit if longest >= self._settings.fair_deadline_seconds else None
        place = Place(told, max(GOOD_SHARE * longest, 1e-3), self._limit.begin())
        try:
            yield place
        except (asyncio.CancelledError, GeneratorExit):
            place.given_up()
            raise
        except ServiceError as error:
            if error.reason is Reason.DEADLINE_EXCEEDED:
                place.given_up()
            raise
        else:
            place.answered()
        finally:
            self._limit.end()
            self._call_up()

    def _refusal(self, priority: Priority) -> ServiceError:
        self.count_refusal(priority)
        return self.overloaded()

    async def _bulk_turn(self) -> None:
        if not self._line and self._bulk_may_begin():
            self._begin_bulk()
            return
        if len(self._line) >= self._settings.bulk_waiting:
            raise self._refusal(Priority.BULK)
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(self._settings.bulk_wait_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if not turn.cancelled():  # its turn has come in the same instant
                self._end_bulk()
            if isinstance(error, TimeoutError):
                raise self._refusal(Priority.BULK) from None
            raise
        finally:
            if turn in self._line:
                self._line.remove(turn)

    def _call_up(self) -> None:
        while self._line and self._bulk_may_begin():
            turn = self._line.popleft()
            if not turn.done():
                self._begin_bulk()
                turn.set_result(None)

    def _bulk_may_begin(self) -> bool:
        # One goes on even among too many questions, so that it is slow and not stuck.
        return self._bulk < (1 if self._limit.is_reached else self.bulk_limit)

    def _begin_bulk(self) -> None:
        self._bulk += 1
        self._limit.begin()

    def _end_bulk(self) -> None:
        self._bulk -= 1
        self._limit.end()
        self._call_up()
