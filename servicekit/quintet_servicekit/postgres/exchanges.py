"""Round trips to PostgreSQL that end with their caller, and the breaker around them.

psycopg waits for ten seconds when a statement is cancelled and the server does not answer.
So each round trip runs in a task of its own: whoever called it leaves at once, and the
task has the statement cancelled on the server. That the server ends it is an answer; that
it does not within `CANCEL_SECONDS` is a failure, and the connection is given up. So a slow
statement is told from an absent server, whatever time its caller had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from quintet_servicekit.breaker import Breaker, Snapshot, State
from quintet_servicekit.breaker_policy import BreakerSettings, Outcome
from quintet_servicekit.postgres.connecting import Connection, hang_up

T = TypeVar("T")
Work = Callable[[Connection], Coroutine[Any, Any, T]]

CANCEL_SECONDS = 1.0
"""How long a server may take to end a statement. A healthy one takes two milliseconds; a
busy machine should not pass for an absent one."""
FAIR_WAIT_SECONDS = 0.25
"""Wait for a connection that could be made, from which the server is to blame. Connecting
takes some five milliseconds."""
_ABSENT = ("08", "57P01", "57P02", "57P03")
"""Beginnings of the SQLSTATEs of a server that left or is not there yet; all others are
answers."""


class UnreachableError(psycopg.OperationalError):
    """No connection could be made."""


class Exchanges:
    """The round trips over one pool, whose `reconnect_failed` calls `unreachable`."""

    def __init__(
        self, name: str, settings: BreakerSettings, pool: AsyncConnectionPool[Connection]
    ) -> None:
        self.breaker = Breaker(name, settings, classify=_outcome_of)
        self.breaker.subscribe(self._told)
        self._pool = pool
        self._waiting: set[_Exchange] = set()
        self._connected = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def admit(self) -> ExitStack:
        """Return the guard of one round trip, for `run`, which leaves it.

        Raises `ServiceError` CIRCUIT_OPEN while the server is known to be away.
        """
        admitted = ExitStack()
        admitted.enter_context(self.breaker.guard())
        return admitted

    async def run(self, admitted: ExitStack, work: Work[T], *, seconds: float) -> T:
        """Return what `work` returns, given a connection of the pool.

        Raises what it raises; TimeoutError after `seconds`; and `UnreachableError`,
        `PoolTimeout` or `TooManyRequests` without a connection.
        """
        exchange = _Exchange()
        task = self._background(self._run(admitted, exchange, work))
        exchange.task = task
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._leave(exchange)
            raise
        if not done:
            self._leave(exchange)
            raise TimeoutError
        return task.result()

    def unreachable(self) -> None:
        """Note that no connection could be made: unless others are in use, nobody waits
        for one any longer."""
        if self._connected == 0:
            for exchange in self._waiting:
                exchange.give_up()

    async def aclose(self) -> None:
        """Wait until those round trips have ended whose callers have left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, admitted: ExitStack, exchange: _Exchange, work: Work[T]) -> T:
        with admitted:
            connection = await self._connection(exchange)
            self._connected += 1
            try:
                # The pool rolls back what is left of a transaction, and drops a
                # connection that is of no use any more.
                async with connection:
                    if exchange.left:
                        raise asyncio.CancelledError
                    exchange.connection = connection
                    return await work(connection)
            finally:
                if exchange.cancelling is not None:
                    # Else it could end the statement of the connection's next user.
                    await asyncio.wait({exchange.cancelling})
                exchange.connection = None
                self._connected -= 1
                await self._pool.putconn(connection)

    async def _connection(self, exchange: _Exchange) -> Connection:
        self._waiting.add(exchange)
        began = time.monotonic()
        try:
            return await self._pool.getconn()
        except (asyncio.CancelledError, PoolTimeout):
            waited = time.monotonic() - began
            has_room = self._connected < self._pool.max_size
            if exchange.is_hopeless or (has_room and waited >= FAIR_WAIT_SECONDS):
                raise UnreachableError("no connection could be made") from None
            raise
        finally:
            self._waiting.discard(exchange)

    def _leave(self, exchange: _Exchange) -> None:
        exchange.left = True
        if exchange.connection is not None:
            exchange.cancelling = self._background(_cancel(exchange.connection))
            self._background(self._end(exchange, exchange.connection))
        elif exchange in self._waiting:
            exchange.task.cancel()

    async def _end(self, exchange: _Exchange, connection: Connection) -> None:
        done, _ = await asyncio.wait({exchange.task}, timeout=CANCEL_SECONDS)
        if not done:
            hang_up(connection)

    def _told(self, snapshot: Snapshot) -> None:
        if snapshot.state is State.OPEN:
            for exchange in self._waiting:
                exchange.give_up()

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Who has left does not ask how it ended.
        task.add_done_callback(lambda it: it.cancelled() or it.exception())
        return task


class _Exchange:
    """One round trip: its task, the connection that it has, whether its caller has left."""

    __slots__ = ("cancelling", "connection", "is_hopeless", "left", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any]
        self.cancelling: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        self.left = False
        self.is_hopeless = False

    def give_up(self) -> None:
        """Wait no longer for a connection."""
        self.is_hopeless = True
        self.task.cancel()


async def _cancel(connection: Connection) -> None:
    with suppress(psycopg.Error):
        await connection.cancel_safe(timeout=CANCEL_SECONDS)


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, TooManyRequests | PoolTimeout):
        return Outcome.NEUTRAL
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Outcome.ANSWERED
    is_absent = error.sqlstate is None or error.sqlstate.startswith(_ABSENT)
    return Outcome.FAILED if is_absent else Outcome.ANSWERED
