"""What the retriever does when PostgreSQL is away, slow, busy or restarted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import sql
from pydantic import SecretStr
from support.postgres import FAST
from support.retriever import (
    create,
    document,
    failure,
    packed,
    retriever_on,
    settings_for,
    tables,
    upsert,
)

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_retriever.app import SERVICE, open_application
from quintet_retriever.database import SCHEMA, Database
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import migrate
from quintet_servicekit.server import RunningServer

if TYPE_CHECKING:
    from support.retriever import Stub

SEARCH = pb.SearchRequest(collection="c", vector=packed([1, 0]))
PROBE = Operation("SELECT", "probe")


async def ends_well(call: Any) -> Any:
    """Return the first response of `call()` that is not UNAVAILABLE, within 5 seconds."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.05)


@asynccontextmanager
async def listening(url: str, **settings_: Any) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a channel to a retriever that listens, whether or not it is ready."""
    settings = settings_for(url, pool_timeout_seconds=1.5, **settings_)
    async with (
        open_application(settings) as application,
        RunningServer(settings, application) as server,
    ):
        stop = asyncio.Event()
        running = asyncio.create_task(server.until(stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
        stop.set()
        assert await running == 0


async def health(channel: grpc.aio.Channel) -> int:
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    response = await health_pb2_grpc.HealthStub(channel).Check(request)
    return int(response.status)


async def becomes(channel: grpc.aio.Channel, status: int) -> None:
    async with asyncio.timeout(5):
        while True:
            if await health(channel) == status:
                return
            await asyncio.sleep(0.05)


async def test_it_starts_without_postgresql_and_survives_its_restart(tmp_path: Path) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    # Once, to make its data folder and password.
    await process.stop(await server.start(), signal.SIGINT, grace=10)
    async with listening(server.dsn) as channel:
        stub: Stub = pb_grpc.RetrieverServiceStub(channel)
        await asyncio.sleep(0.3)
        assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await failure(stub.Search(SEARCH))).reason is Reason.NOT_READY

        running = await server.start()
        await becomes(channel, health_pb2.HealthCheckResponse.SERVING)
        await create(stub, "c")
        await upsert(stub, "c", document("d"))
        # Several connections, which the restart makes useless.
        await asyncio.gather(*[stub.Search(SEARCH) for _ in range(20)])

        await process.stop(running, signal.SIGINT, grace=10)
        error = await failure(stub.Search(SEARCH))
        # Whether its own probes find it out before this call does is a matter of luck.
        assert error.reason in {Reason.DEPENDENCY_UNAVAILABLE, Reason.CIRCUIT_OPEN}
        assert error.metadata == {"dependency": "postgresql"}
        assert error.retry_after is not None
        await becomes(channel, health_pb2.HealthCheckResponse.NOT_SERVING)

        running = await server.start()
        await becomes(channel, health_pb2.HealthCheckResponse.SERVING)
        found = await ends_well(lambda: stub.Search(SEARCH))
        assert [hit.document_id for hit in found.hits] == ["d"]
        for _ in range(20):
            await stub.Search(SEARCH)
        await process.stop(running, signal.SIGINT, grace=10)


@contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    """Hold the locks of a statement, on the tables of the only collection, while the
    context lasts."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.format(**tables(url)).encode())
        yield
        connection.rollback()


LOCK_CHUNKS = "LOCK TABLE {chunk} IN ACCESS EXCLUSIVE MODE"


async def test_idle_connections_that_were_closed_are_replaced_unnoticed(
    database_url: str,
) -> None:
    async with retriever_on(database_url, pool_min_size=4, probe_interval_seconds=60) as stub:
        await create(stub, "c")
        await asyncio.gather(*[stub.Search(SEARCH) for _ in range(8)])
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'quintet-retriever' AND datname = current_database()"
            )
        await asyncio.sleep(0.1)
        for _ in range(8):
            await stub.Search(SEARCH)


async def test_a_connection_that_is_lost_in_mid_statement_is_unavailable(
    database_url: str,
) -> None:
    async with retriever_on(database_url) as stub:
        await create(stub, "c")
        with locked(database_url, LOCK_CHUNKS):
            searching = asyncio.ensure_future(failure(stub.Search(SEARCH)))
            await asyncio.sleep(0.3)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            error = await searching
        assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
        await stub.Search(SEARCH)


async def test_a_statement_that_takes_too_long_is_ended(database_url: str) -> None:
    async with retriever_on(database_url, statement_timeout_seconds=0.3) as stub:
        await create(stub, "c")
        with locked(database_url, LOCK_CHUNKS):
            error = await failure(stub.Search(SEARCH))
        assert error.reason is Reason.DEADLINE_EXCEEDED
        assert error.metadata == {"hop": "postgresql"}


async def test_a_writer_who_waits_too_long_for_another_can_repeat(database_url: str) -> None:
    async with retriever_on(database_url, lock_timeout_seconds=0.3) as stub:
        await create(stub, "c")
        await upsert(stub, "c", document("d"))
        with locked(database_url, "UPDATE {document} SET version = version"):
            error = await failure(upsert(stub, "c", document("d")))
        assert error.reason is Reason.CONFLICT
        assert error.code is grpc.StatusCode.ABORTED
        (result,) = await upsert(stub, "c", document("d"))
        assert result.version == 2


async def test_a_retriever_with_all_connections_busy_stays_serving(database_url: str) -> None:
    busy = {"pool_min_size": 1, "pool_max_size": 1}
    async with listening(database_url, **busy) as channel:
        await becomes(channel, health_pb2.HealthCheckResponse.SERVING)
        stub: Stub = pb_grpc.RetrieverServiceStub(channel)
        await create(stub, "c")
        with locked(database_url, LOCK_CHUNKS):
            searching = asyncio.ensure_future(stub.Search(SEARCH))
            await asyncio.sleep(2.2)
            assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
        await searching


async def test_more_calls_than_connections_wait_and_too_many_are_refused(
    database_url: str,
) -> None:
    async with retriever_on(
        database_url,
        pool_min_size=1,
        pool_max_size=1,
        pool_max_waiting=1,
        pool_timeout_seconds=0.4,
        probe_interval_seconds=60,
    ) as stub:
        await create(stub, "c")
        with locked(database_url, LOCK_CHUNKS):
            first = asyncio.ensure_future(stub.Search(SEARCH))
            await asyncio.sleep(0.2)
            second = asyncio.ensure_future(failure(stub.Search(SEARCH)))
            await asyncio.sleep(0.1)
            third = await failure(stub.Search(SEARCH))
            assert (await second).reason is Reason.DEPENDENCY_UNAVAILABLE
        assert third.reason is Reason.OVERLOADED
        assert third.retry_after is not None
        assert list((await first).hits) == []


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Database]:
    await migrate(url, SCHEMA, connect_timeout=5, lock_timeout=5)
    opened = Database(settings_for(url, database_url=SecretStr(url)))
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def test_transactions_that_deadlock_are_tried_again(database_url: str) -> None:
    async with database(database_url) as db:
        await db.run(PROBE, Statement(sql.SQL("CREATE TABLE t AS SELECT 0 AS n, 'a' AS k")))
        await db.run(PROBE, Statement(sql.SQL("INSERT INTO t VALUES (0, 'b')")))

        def add(key: str) -> Statement:
            return Statement(sql.SQL("UPDATE t SET n = n + 1 WHERE k = %(k)s"), {"k": key})

        pause = Statement(sql.SQL("SELECT pg_sleep(0.2)"))
        await asyncio.gather(
            db.run(PROBE, add("a"), pause, add("b")), db.run(PROBE, add("b"), pause, add("a"))
        )
        assert [row["n"] for row in await db.run(PROBE, Statement(sql.SQL("TABLE t")))] == [2, 2]


async def test_a_transaction_that_never_gets_through_is_a_conflict(database_url: str) -> None:
    failing = Statement(
        sql.SQL("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'serialization_failure'; END $$")
    )
    async with database(database_url) as db:
        with pytest.raises(ServiceError) as caught:
            await db.run(PROBE, failing)
        assert caught.value.reason is Reason.CONFLICT
