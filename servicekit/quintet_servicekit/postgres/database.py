"""The one door to PostgreSQL: the pool, round trips, their spans, and what their errors mean.

Everything that the store does is one round trip: its statements are sent
together, in one transaction, and no transaction ever waits for us. Each first says for which
tenant it is, by which row-level security tells what it sees.
"""

from __future__ import annotations

import asyncio
import random
import select
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import psycopg
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from prometheus_client import Histogram
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, TooManyRequests

from quintet_servicekit import identity, telemetry
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres import pool_metrics, tenancy
from quintet_servicekit.postgres.connecting import Connection, Probe, arguments
from quintet_servicekit.postgres.exchanges import Exchanges
from quintet_servicekit.postgres.settings import PostgresSettings
from quintet_servicekit.spans import working

DEPENDENCY = "postgresql"

_ATTEMPTS = 4
"""Tries of a transaction that met another one. Writers to one document wait for
each other, so that a second meeting in a row is rare already."""

PROBE_SECONDS = 0.25
"""Pause between probes while the database is away: well within the second in which it is
to be used again."""
PING_SECONDS = 0.8
"""How long an answer to a ping may take: less than readiness waits for it."""
_ROUND_TRIP_SECONDS = 1.0
"""What a round trip may take beyond its connection's and its statement's own time, which a
server that hangs does not keep."""

_FOR_TENANT = "SELECT set_config(%s, %s, true)"

_SECONDS = Histogram(
    "db_client_operation_duration_seconds",
    "Duration of a round trip to the database.",
    ("db_operation_name", "db_collection_name"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and the values of its named placeholders."""

    sql: sql.SQL | sql.Composed
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a round trip does, for its span: "SELECT" on "chunk". `summary` names
    every table that is touched, if there are several. What is done in the `background` is
    part of no call, and has no span."""

    name: str
    table: str
    summary: str = ""
    background: bool = False

    def attributes(self) -> dict[str, str | int]:
        """Return the span's attributes, by OpenTelemetry's database conventions."""
        return {
            "db.system.name": DEPENDENCY,
            "db.operation.name": self.name,
            "db.collection.name": self.table,
            "db.query.summary": self.summary or f"{self.name} {self.table}",
        }


class Database:
    """A bounded pool of connections. `open` it before use, and `close` it.

    While the database is known to be away, calls end at once with CIRCUIT_OPEN; `ping`
    finds its return, so that no call is spent on that. `service` names who connects;
    `prepare` does more to each new connection.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        breaker: BreakerSettings,
        *,
        service: str,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._prepare = prepare
        self._seconds = (
            settings.pool_timeout_seconds + settings.statement_timeout_seconds + _ROUND_TRIP_SECONDS
        )
        # A pause of ours would come on top of the breaker's.
        self._pool = AsyncConnectionPool[Connection](
            settings.database_url.get_secret_value(),
            kwargs=arguments(settings, service),
            min_size=settings.pool_min_size,
            max_size=settings.pool_max_size,
            timeout=settings.pool_timeout_seconds,
            max_waiting=settings.pool_max_waiting,
            reconnect_timeout=0.0,
            reconnect_failed=self._unreachable,
            configure=self._configure,
            check=self._check,
            name=service,
            open=False,
        )
        pool_metrics.tell(self._pool)
        self._server = _server_attributes(settings)
        self._exchanges = Exchanges(DEPENDENCY, breaker, self._pool)
        self.breaker = self._exchanges.breaker
        self._probe = Probe(settings, service)
        self._unanswered = 0
        self._watched = AsyncExitStack()

    async def open(self) -> None:
        """Begin to connect. What `prepare` needs must be there: migrate first."""
        await self._pool.open()
        watch = self.breaker.watch(self._probe.ask, PROBE_SECONDS)
        await self._watched.enter_async_context(watch)

    async def close(self) -> None:
        """Close all connections."""
        await self._watched.aclose()
        await self._exchanges.aclose()
        await self._pool.close()
        await self._probe.aclose()

    async def ping(self) -> None:
        """Raise `ServiceError` DEPENDENCY_UNAVAILABLE unless the database answers. After
        the second time in a row calls are not let through until it does."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._probe.ask()
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._unanswered += 1
            if self._unanswered >= 2:
                self.breaker.trip(0.0, "the database did not answer two probes")
            raise _unavailable() from error
        self._unanswered = 0

    async def run(self, operation: Operation, *statements: Statement) -> list[DictRow]:
        """Run the statements in one transaction and one round trip; return the rows
        of the last one.

        A caller who leaves, or whose time is up, has the statement cancelled on the server.
        Raises `ServiceError` DEPENDENCY_UNAVAILABLE or CIRCUIT_OPEN, OVERLOADED (too many
        wait for a connection), DEADLINE_EXCEEDED (the statement's time is up) or CONFLICT,
        and psycopg's errors of statements that are wrong.
        """

        tenant = identity.current().tenant

        async def work(connection: Connection) -> list[DictRow]:
            return await _rows(connection, tenant, statements)

        for attempt in range(_ATTEMPTS):
            admitted = self._exchanges.admit()
            try:
                with self._observed(operation, len(statements)) as span:
                    rows = await self._exchanges.run(admitted, work, seconds=self._seconds)
                    span.set_attribute("db.response.returned_rows", len(rows))
                    return rows
            except errors.LockNotAvailable as error:
                raise _conflict() from error
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if attempt == _ATTEMPTS - 1:
                    raise _conflict() from error
                await asyncio.sleep(random.uniform(0.005, 0.05) * 2**attempt)  # noqa: S311
            except (errors.QueryCanceled, TimeoutError) as error:
                raise ServiceError(
                    Reason.DEADLINE_EXCEEDED,
                    "the database took longer than a statement may",
                    metadata={"hop": DEPENDENCY},
                ) from error
            except TooManyRequests as error:
                raise ServiceError(
                    Reason.OVERLOADED, "too many calls wait for the database"
                ) from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                raise _unavailable() from error
        raise AssertionError("the last attempt raises")

    @contextmanager
    def _observed(self, operation: Operation, statements: int) -> Iterator[Span]:
        began = time.perf_counter()
        attributes = operation.attributes() | self._server
        if statements > 1:
            attributes["db.operation.batch.size"] = statements
        working_on = working(str(attributes["db.query.summary"]), attributes, SpanKind.CLIENT)
        with nullcontext(INVALID_SPAN) if operation.background else working_on as span:
            try:
                yield span
            except psycopg.Error as error:
                if error.sqlstate:
                    span.set_attribute("db.response.status_code", error.sqlstate)
                raise
            finally:
                seconds = time.perf_counter() - began
                _SECONDS.labels(operation.name, operation.table).observe(
                    seconds, telemetry.exemplar_of(span)
                )

    def _unreachable(self, _: object) -> None:
        self._exchanges.unreachable()

    async def _configure(self, connection: Connection) -> None:
        settings = self._settings
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false), set_config('jit', 'off', false),"
            # A caller who could not even have its statement cancelled is noticed.
            " set_config('client_connection_check_interval', '1s', false)",
            [
                _milliseconds(settings.statement_timeout_seconds),
                _milliseconds(settings.lock_timeout_seconds),
            ],
        )
        if self._prepare is not None:
            await self._prepare(connection)

    async def _check(self, connection: Connection) -> None:
        """Raise if the server has left; costs no round trip while it has not.

        An idle connection has nothing to read unless it was closed. Its siblings
        are then dead as well, and the pool would find them one a second.
        """
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if poll.poll(0):
            try:
                await connection.execute("")
            except psycopg.Error:
                await self._pool.drain()
                raise


async def _rows(
    connection: Connection, tenant: str, statements: Sequence[Statement]
) -> list[DictRow]:
    # psycopg's own transaction() waits for BEGIN and COMMIT: two more round trips, during
    # which locks are held. What a pipeline sends without them is one transaction too.
    several = len(statements) > 1
    async with connection.pipeline():
        if several:
            await connection.execute("BEGIN")
        await connection.execute(_FOR_TENANT, [tenancy.SETTING, tenant])
        for statement in statements:
            cursor = await connection.execute(statement.sql, statement.parameters)
        if several:
            await connection.execute("COMMIT")
    return await cursor.fetchall() if cursor.description else []


def _server_attributes(settings: PostgresSettings) -> dict[str, str | int]:
    told = conninfo_to_dict(settings.database_url.get_secret_value())
    return {
        "db.namespace": str(told.get("dbname") or told.get("user") or DEPENDENCY),
        # Of several hosts libpq takes whichever answers.
        "server.address": str(told.get("host") or "localhost").partition(",")[0],
        "server.port": int(str(told.get("port") or 5432).partition(",")[0]),
    }


def _unavailable() -> ServiceError:
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "the database cannot be reached",
        metadata={"dependency": DEPENDENCY},
    )


def _conflict() -> ServiceError:
    return ServiceError(Reason.CONFLICT, "another writer was faster; repeat the call")


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
