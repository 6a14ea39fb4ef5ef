"""Puts together what keeps ratings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quintet_gateway.database import Database
from quintet_gateway.feedback.rating import Ratings
from quintet_gateway.feedback.settings import FeedbackSettings
from quintet_gateway.feedback.store import PostgresRatings
from quintet_gateway.records.opening import Records
from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.errors import ServiceError

TRIM = 10_000
"""Ratings that one statement drops."""


@asynccontextmanager
async def open_ratings(
    settings: FeedbackSettings, database: Database | None, records: Records | None
) -> AsyncIterator[Ratings | None]:
    """Yield what keeps ratings, and looks after them; None where no records are kept."""
    if database is None or records is None:
        yield None
        return
    store = PostgresRatings(database)

    async def look_after() -> None:
        await database.migrated.wait()
        while True:
            try:
                while await store.trim(settings.days, settings.tenant_rows, TRIM):
                    pass
            except ServiceError as error:
                telemetry.logger().warning("ratings were not looked after", cause=error.reason)
            await asyncio.sleep(settings.upkeep_seconds)

    async with beside(look_after, "ratings"):
        yield Ratings(records.explainer, store, comments=settings.comments)
