"""The breaker between the retriever and PostgreSQL, and what becomes of a statement whose
caller has left."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from support.postgres import FAST
from support.retriever import settings_for

from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_retriever.database import SCHEMA, Database
from quintet_servicekit.breaker import State
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import migrate

PROBE = Operation("SELECT", "probe")
ONE = Statement(sql.SQL("SELECT 1 AS one"))
FOR_EVER = Statement(sql.SQL("SELECT pg_sleep(60)"))
BUSY = (
    b"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
    b" AND pid <> pg_backend_pid() AND state = 'active'"
)


@asynccontextmanager
async def database(url: str, **settings: object) -> AsyncIterator[Database]:
    await migrate(url, SCHEMA, connect_timeout=5, lock_timeout=5)
    opened = Database(settings_for(url, database_url=SecretStr(url), **settings))
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop PostgreSQL with all its processes while the context lasts."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    pids = [pid, *children]
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in pids:
            os.kill(each, signal.SIGCONT)


async def error_of(database: Database, seconds: float) -> Reason | None:
    """Return why a round trip of a caller who has `seconds` failed; None without an error."""
    try:
        async with asyncio.timeout(seconds):
            await database.run(PROBE, ONE)
    except ServiceError as error:
        return error.reason
    except TimeoutError:
        return Reason.DEADLINE_EXCEEDED
    return None


async def becomes(database: Database, state: State) -> None:
    async with asyncio.timeout(5):
        while True:
            if database.breaker.state is state:
                return
            await asyncio.sleep(0.01)


async def refusal_seconds(database: Database) -> float:
    """Return the median of what a refused call takes."""
    took = []
    for _ in range(200):
        began = time.perf_counter()
        with pytest.raises(ServiceError) as caught:
            await database.run(PROBE, ONE)
        took.append(time.perf_counter() - began)
        assert caught.value.reason is Reason.CIRCUIT_OPEN
        assert caught.value.retry_after is not None
    return statistics.median(took)


async def test_when_postgresql_stops_calls_fail_at_once_and_it_is_used_again_after_its_return(
    tmp_path: Path,
) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    async with database(server.dsn) as db:
        await asyncio.gather(*[db.run(PROBE, ONE) for _ in range(5)])
        await process.stop(running, signal.SIGINT, grace=10)
        # Not even the first waits for its deadline: connecting is refused.
        async with asyncio.timeout(5):
            reasons = [await error_of(db, 5) for _ in range(5)]
        assert set(reasons) <= {Reason.DEPENDENCY_UNAVAILABLE, Reason.CIRCUIT_OPEN}
        assert db.breaker.state is State.OPEN
        assert await refusal_seconds(db) < 0.001  # a tenth of it on a quiet machine

        running = await server.start()
        await becomes(db, State.CLOSED)  # though nobody calls
        assert [await error_of(db, 5) for _ in range(5)] == [None] * 5
    await process.stop(running, signal.SIGINT, grace=10)


async def test_when_postgresql_freezes_calls_keep_their_deadline_and_then_fail_at_once(
    tmp_path: Path,
) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    async with database(server.dsn) as db:
        await asyncio.gather(*[db.run(PROBE, ONE) for _ in range(3)])
        with frozen(running.pid):
            for _ in range(3):
                began = time.perf_counter()
                assert await error_of(db, 0.3) is Reason.DEADLINE_EXCEEDED
                # psycopg itself would wait for ten seconds.
                assert time.perf_counter() - began < 2
            await becomes(db, State.OPEN)
            assert await error_of(db, 5) is Reason.CIRCUIT_OPEN
        await becomes(db, State.CLOSED)
        # The connections that were given up are not among those that are used now.
        assert [await error_of(db, 5) for _ in range(10)] == [None] * 10
    await process.stop(running, signal.SIGINT, grace=10)


async def test_a_probe_that_nobody_answers_opens_the_breaker_without_a_call(
    tmp_path: Path,
) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    async with database(server.dsn) as db:
        await db.ping()
        with frozen(running.pid):
            for _ in range(2):
                with pytest.raises(ServiceError):
                    await db.ping()
            assert db.breaker.state is State.OPEN
        await becomes(db, State.CLOSED)
        await db.ping()
    await process.stop(running, signal.SIGINT, grace=10)


async def test_a_statement_whose_caller_leaves_is_cancelled_on_the_server(
    database_url: str,
) -> None:
    async with (
        database(database_url, pool_min_size=1, pool_max_size=1) as db,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):

        async def becomes_busy(expected: bool) -> None:
            async with asyncio.timeout(5):
                while True:
                    row = await (await observer.execute(BUSY)).fetchone()
                    if row == (int(expected),):
                        return
                    await asyncio.sleep(0.01)

        async def backend() -> int:
            (row,) = await db.run(PROBE, Statement(sql.SQL("SELECT pg_backend_pid() AS pid")))
            return int(row["pid"])

        before = await backend()
        for statements in ([FOR_EVER], [ONE, FOR_EVER]):
            for _ in range(4):
                call = asyncio.create_task(db.run(PROBE, *statements))
                await becomes_busy(True)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await becomes_busy(False)
        # It was an answer each time, of a connection that is as good as before.
        assert db.breaker.state is State.CLOSED
        assert await backend() == before


async def test_a_cancellation_never_ends_the_statement_of_the_connections_next_user(
    database_url: str,
) -> None:
    short = Statement(sql.SQL("SELECT pg_sleep(0.002)"))
    async with database(database_url, pool_min_size=2, pool_max_size=2) as db:

        async def leave(seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await db.run(PROBE, short)
            except TimeoutError:
                pass

        async def stay() -> None:
            await db.run(PROBE, short)

        for number in range(40):
            await asyncio.gather(
                *[leave(0.0005 * (number % 12)) for _ in range(4)], *[stay() for _ in range(4)]
            )
        assert db.breaker.state is State.CLOSED


async def test_what_the_server_answers_does_not_open_the_breaker(database_url: str) -> None:
    refused = [
        "SELECT 1 / 0",
        "SELECT nothing",
        "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'lock_not_available'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'query_canceled'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'disk_full'; END $$",
    ]
    async with database(database_url) as db:
        for text in refused:
            for _ in range(5):
                with pytest.raises((ServiceError, psycopg.Error)):
                    await db.run(PROBE, Statement(sql.SQL(text)))
        assert db.breaker.state is State.CLOSED


async def test_waiting_for_a_busy_pool_does_not_open_the_breaker(database_url: str) -> None:
    busy = {"pool_min_size": 1, "pool_max_size": 1, "pool_timeout_seconds": 0.3}
    async with database(database_url, pool_max_waiting=4, **busy) as db:
        holding = asyncio.create_task(db.run(PROBE, FOR_EVER))
        await asyncio.sleep(0.1)
        reasons = await asyncio.gather(*[error_of(db, 5) for _ in range(8)])
        assert set(reasons) == {Reason.DEPENDENCY_UNAVAILABLE, Reason.OVERLOADED}
        assert db.breaker.state is State.CLOSED
        holding.cancel()
