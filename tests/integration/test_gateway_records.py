"""Records of answers in a real PostgreSQL: kept for some days, bounded, and each tenant's own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from support.days import the_same_day
from support.postgres import FAST, service_url

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.database import Database, open_database
from quintet_gateway.records.entry import Entry, new_id
from quintet_gateway.records.opening import Records, open_records
from quintet_gateway.records.store import PostgresRecords, RefusedError, Row
from quintet_gateway.records.writer import RECORDS, Upkeep
from quintet_gateway.settings import RecordSettings, Settings
from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

ACME, OTHER = Identity("acme", "k1"), Identity("other", "k1")


def settings_for(url: str, **records: Any) -> Settings:
    quick: dict[str, Any] = {"interval_seconds": 0.05}
    return Settings(
        database_url=SecretStr(service_url(url)),
        owner_database_url=SecretStr(url),
        records=RecordSettings(**(quick | records)),
    )


@asynccontextmanager
async def recording(url: str, **records: Any) -> AsyncIterator[tuple[Records, Database]]:
    settings = settings_for(url, **records)
    async with open_database(settings) as database, open_records(settings, database) as opened:
        assert database is not None
        assert opened is not None
        yield opened, database


def entry(tenant: str = "acme", key: str = "k1") -> Entry:
    request = pb.AskRequest(collection="c", question="q")
    return Entry(new_id(), tenant, key, False, request, pb.AskResponse(model="m"), "e", "er")


def rows(url: str) -> list[tuple[UUID, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, tenant FROM gateway.answer ORDER BY id").fetchall()


async def record_of(records: Records, asker: Identity, answer_id: str) -> explain_pb.AnswerRecord:
    with acting_as(asker):
        return await records.explainer.record(asker, answer_id)


async def found_by_another_replica(
    database: Database, answer_id: UUID
) -> explain_pb.AnswerRecord | None:
    with acting_as(ACME):
        return await PostgresRecords(database).find("acme", answer_id)


async def until_written(url: str, number: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if len(await asyncio.to_thread(rows, url)) == number:
                    return
            except psycopg.errors.UndefinedTable:
                pass
            await asyncio.sleep(0.02)


async def test_a_record_is_found_while_it_waits_and_after_it_was_written(database_url: str) -> None:
    async with recording(database_url) as (records, database):
        noted = entry()
        records.writer.put(noted)
        early = await record_of(records, ACME, str(noted.id))
        await until_written(database_url, 1)
        assert await record_of(records, ACME, str(noted.id)) == early
        assert await record_of(records, ACME, "") == early
        assert early.answer_id == str(noted.id)
        # As another replica finds it.
        assert await found_by_another_replica(database, noted.id) == early


async def test_another_tenants_record_is_not_found_and_looks_like_one_that_never_was(
    database_url: str,
) -> None:
    async with recording(database_url) as (records, _):
        written, waiting = entry(), entry()
        records.writer.put(written)
        await until_written(database_url, 1)
        records.writer.put(waiting)
        told = set()
        for identifier in (str(written.id), str(waiting.id), str(new_id())):
            with pytest.raises(ServiceError) as caught:
                await record_of(records, OTHER, identifier)
            told.add((caught.value.reason, caught.value.message))
        assert told == {(Reason.ANSWER_NOT_FOUND, "there is no record of that answer")}
        with pytest.raises(ServiceError):
            await record_of(records, OTHER, "")
        with pytest.raises(ServiceError):
            await record_of(records, Identity("acme", "k2"), "")


async def test_what_waits_when_a_gateway_ends_is_written(database_url: str) -> None:
    async with recording(database_url, interval_seconds=60) as (records, database):
        await database.migrated.wait()
        await PostgresRecords(database).renew_days(7, waits=True)
        for _ in range(3):
            records.writer.put(entry())
    assert len(rows(database_url)) == 3


async def test_a_tenant_keeps_its_newest_records_and_others_keep_theirs(database_url: str) -> None:
    async with recording(database_url) as (records, database):
        noted = [entry() for _ in range(12)]
        others = [entry("other") for _ in range(5)]
        for it in [*noted, *others]:
            records.writer.put(it)
        await until_written(database_url, 17)
        store = PostgresRecords(database)
        newest = [it for it, tenant in rows(database_url) if tenant == "acme"][-5:]
        # So many at once that it takes several statements, as it does in `Upkeep`.
        while await store.trim(5, 3):
            pass
        left = rows(database_url)
        assert [it for it, tenant in left if tenant == "acme"] == newest
        assert len(left) == 10


async def test_records_go_with_their_day(database_url: str) -> None:
    await the_same_day(30)
    async with open_database(settings_for(database_url)) as database:
        assert database is not None
        await database.migrated.wait()
        today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
        store = PostgresRecords(database)
        await Upkeep(store, days=7, most=100, interval=60).begin()

        def of(days_ago: int) -> UUID:
            day = today - timedelta(days=days_ago)
            return UUID(int=int(day.timestamp() * 1000) << 80 | 7 << 76)

        with psycopg.connect(database_url, autocommit=True) as connection:
            for days in (8, 7):
                connection.execute(
                    "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - "
                    + str(days)
                    + "; BEGIN EXECUTE format('CREATE TABLE gateway.%I PARTITION OF gateway.answer"
                    " FOR VALUES FROM (%L) TO (%L)', 'answer_' || to_char(day, 'YYYYMMDD'),"
                    " gateway.first_answer_id(day), gateway.first_answer_id(day + 1)); END $$"
                )
        await store.insert([Row(of(days), "acme", "", b"") for days in (8, 7, 0)])
        await Upkeep(store, days=7, most=100, interval=60).once()
        assert [it for it, _ in rows(database_url)] == [of(7), of(0)]
        with pytest.raises(RefusedError):
            await store.insert([Row(of(30), "acme", "", b"")])


async def test_without_its_database_a_gateway_records_later_and_counts_what_it_drops(
    tmp_path: Path,
) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    async with recording(server.dsn, queue=4) as (records, _):
        records.writer.put(entry())
        await until_written(server.dsn, 1)
        await process.stop(running, signal.SIGINT, grace=10)
        dropped = RECORDS.labels("queue_full")._value.get()
        noted = [entry() for _ in range(6)]
        for it in noted:
            records.writer.put(it)
        assert RECORDS.labels("queue_full")._value.get() == dropped + 2
        # Those that wait are found, though nothing answers.
        found = await record_of(records, ACME, str(noted[0].id))
        assert isinstance(found, explain_pb.AnswerRecord)
        with pytest.raises(ServiceError) as caught:
            await record_of(records, ACME, str(noted[5].id))
        assert caught.value.reason in (Reason.DEPENDENCY_UNAVAILABLE, Reason.CIRCUIT_OPEN)
        running = await server.start()
        await until_written(server.dsn, 5)
    await process.stop(running, signal.SIGINT, grace=10)
