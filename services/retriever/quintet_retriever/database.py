"""The one door to PostgreSQL: the pool, round trips, their spans, and what their errors mean.

Everything that the store does is one round trip: its statements are sent
together, in one transaction if there are several, and no transaction ever waits
for us.
"""

from __future__ import annotations

import asyncio
import random
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from opentelemetry.trace import SpanKind, Status, StatusCode
from pgvector.psycopg import register_vector_async
from prometheus_client import Histogram
from psycopg import errors, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, TooManyRequests

from quintet_retriever.models import CollectionGoneError
from quintet_retriever.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError

DEPENDENCY = "postgresql"

_ATTEMPTS = 4
"""Tries of a transaction that met another one. Writers to one document wait for
each other, so that a second meeting in a row is rare already."""

_SECONDS = Histogram(
    "db_client_operation_duration_seconds",
    "Duration of a round trip to the database.",
    ("db_operation_name", "db_collection_name"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

Connection = psycopg.AsyncConnection[DictRow]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and the values of its named placeholders."""

    sql: sql.SQL | sql.Composed
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a round trip does, for its span: "SELECT" on "chunk". `summary` names
    every table that is touched, if there are several."""

    name: str
    table: str
    summary: str = ""

    def attributes(self) -> dict[str, str]:
        """Return the span's attributes, by OpenTelemetry's database conventions."""
        return {
            "db.system.name": DEPENDENCY,
            "db.operation.name": self.name,
            "db.collection.name": self.table,
            "db.query.summary": self.summary or f"{self.name} {self.table}",
        }


class Database:
    """A bounded pool of connections. `open` it before use, and `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = self._new_pool("retriever", settings.pool_min_size, settings.pool_max_size)
        # A connection that no call can take: a busy database is not an absent one.
        self._probe = self._new_pool("probe", 1, 1)

    def _new_pool(self, name: str, least: int, most: int) -> AsyncConnectionPool[Connection]:
        settings = self._settings
        return AsyncConnectionPool[Connection](
            settings.database_url.get_secret_value(),
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": settings.connect_timeout_seconds,
                "application_name": "quintet-retriever",
                # A host that vanished without a word is noticed all the same.
                "keepalives_idle": 10,
                "tcp_user_timeout": 10_000,
            },
            min_size=least,
            max_size=most,
            timeout=settings.pool_timeout_seconds,
            max_waiting=settings.pool_max_waiting,
            # The pool tries again after 1, 2, 4 ... seconds; giving up early and
            # starting anew with the next call keeps the pauses short.
            reconnect_timeout=1.0,
            configure=self._configure,
            check=self._check,
            name=name,
            open=False,
        )

    async def open(self) -> None:
        """Begin to connect. The extension must be there: migrate first."""
        await self._pool.open()
        await self._probe.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        await self._probe.close()

    async def ping(self) -> None:
        """Raise `ServiceError` DEPENDENCY_UNAVAILABLE unless the database answers."""
        try:
            async with self._probe.connection() as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise _unavailable() from error

    async def run(self, operation: Operation, *statements: Statement) -> list[DictRow]:
        """Run the statements in one transaction and one round trip; return the rows
        of the last one.

        Raises `CollectionGoneError` when a table is not there, and `ServiceError`
        DEPENDENCY_UNAVAILABLE, OVERLOADED (too many wait for a connection),
        DEADLINE_EXCEEDED (the statement's time is up) or CONFLICT.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with _observed(operation):
                    return await self._run(statements)
            except errors.LockNotAvailable as error:
                raise _conflict() from error
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if attempt == _ATTEMPTS - 1:
                    raise _conflict() from error
                await asyncio.sleep(random.uniform(0.005, 0.05) * 2**attempt)  # noqa: S311
            except errors.QueryCanceled as error:
                raise ServiceError(
                    Reason.DEADLINE_EXCEEDED,
                    "the database took longer than a statement may",
                    metadata={"hop": DEPENDENCY},
                ) from error
            except errors.UndefinedTable as error:
                raise CollectionGoneError from error
            except TooManyRequests as error:
                raise ServiceError(
                    Reason.OVERLOADED, "too many calls wait for the database"
                ) from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                raise _unavailable() from error
        raise AssertionError("the last attempt raises")

    async def _run(self, statements: Sequence[Statement]) -> list[DictRow]:
        async with self._pool.connection() as connection:
            if len(statements) == 1:
                cursor = await connection.execute(statements[0].sql, statements[0].parameters)
            else:
                # psycopg's own transaction() waits for BEGIN and COMMIT: two more
                # round trips, during which locks are held.
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    for statement in statements:
                        cursor = await connection.execute(statement.sql, statement.parameters)
                    await connection.execute("COMMIT")
            return await cursor.fetchall() if cursor.description else []

    async def _configure(self, connection: Connection) -> None:
        settings = self._settings
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false), set_config('jit', 'off', false)",
            [
                _milliseconds(settings.statement_timeout_seconds),
                _milliseconds(settings.lock_timeout_seconds),
            ],
        )
        await register_vector_async(connection)

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


@contextmanager
def _observed(operation: Operation) -> Iterator[None]:
    attributes = operation.attributes()
    began = time.perf_counter()
    with telemetry.tracer().start_as_current_span(
        f"{operation.name} {operation.table}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        # Messages of the driver may quote values.
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            state = getattr(error, "sqlstate", None)
            if state:
                span.set_attribute("db.response.status_code", state)
            span.set_attribute("error.type", state or type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            seconds = time.perf_counter() - began
            _SECONDS.labels(operation.name, operation.table).observe(seconds)


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
