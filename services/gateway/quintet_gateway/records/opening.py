"""Puts together what keeps records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from quintet_gateway.database import Database
from quintet_gateway.records.composing import Composer
from quintet_gateway.records.explaining import Explainer
from quintet_gateway.records.store import PostgresRecords
from quintet_gateway.records.writer import RecordWriter, Upkeep
from quintet_gateway.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.errors import ServiceError

END_SECONDS = 2.0
"""How long the end of a process waits for records to be written."""


@dataclass(frozen=True, slots=True)
class Records:
    """Who takes notes of answers, and who finds them."""

    writer: RecordWriter
    explainer: Explainer


@asynccontextmanager
async def open_records(
    settings: Settings, database: Database | None
) -> AsyncIterator[Records | None]:
    """Yield what keeps records; None without a database, or where they are not wanted."""
    wanted = settings.records
    if database is None or not wanted.kept:
        yield None
        return
    store = PostgresRecords(database)
    composer = Composer(
        texts=wanted.texts,
        max_bytes=wanted.max_bytes,
        default_passages=settings.default_passages,
        abstain_below=settings.abstain_below,
        min_citation_support=settings.min_citation_support,
        duplicate_similarity=settings.duplicate_similarity,
        semantic_similarity=settings.semantic_threshold,
    )
    writer = RecordWriter(
        store, composer.packed, most=wanted.queue, interval=wanted.interval_seconds
    )
    upkeep = Upkeep(
        store,
        days=wanted.days,
        most=wanted.tenant_rows,
        interval=wanted.upkeep_seconds,
    )

    async def work() -> None:
        await database.migrated.wait()
        await _begun(upkeep, wanted.interval_seconds)
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            group.create_task(upkeep.run())

    try:
        async with beside(work, "records"):
            yield Records(writer, Explainer(store, writer, composer))
    finally:
        await writer.end(END_SECONDS)


async def _begun(upkeep: Upkeep, pause: float) -> None:
    while True:
        try:
            await upkeep.begin()
            return
        except ServiceError as error:
            telemetry.logger().warning("waiting for the table of records", cause=error.reason)
            await asyncio.sleep(pause)
