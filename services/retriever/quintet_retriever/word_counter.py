"""Counts the words of collections anew when enough chunks have changed.

Writers do it themselves in small collections; see the migration that made the counts. Here
the others are seen to, and what a writer left because another was at it. Every replica
runs one; a collection is counted by one of them at a time.
"""

from __future__ import annotations

import asyncio

import psycopg
from prometheus_client import Counter
from psycopg import errors

from quintet_retriever.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.postgres import tenancy

_RECONNECT_SECONDS = 1.0

_COUNTS = Counter("quintet_word_counts_total", "Times that a collection's words were counted.")

_DUE = "SELECT tenant, id FROM retriever.due_collections()"
_FOR_TENANT = "SELECT set_config(%s, %s, true)"
# Who deletes the collection waits, rather than we for each other.
_SHARE = "SELECT FROM retriever.collection WHERE id = %s FOR KEY SHARE"
_COUNT = "SELECT retriever.count_words_of(%s)"
# No document was touched; keys of documents begin at 1.
_RAISE = (
    "WITH raised AS ("
    " UPDATE retriever.collection SET epoch = epoch + 1 WHERE id = %s RETURNING id, name, epoch"
    "), changed AS ("
    " INSERT INTO retriever.change (collection_id, epoch, document_key)"
    " SELECT id, epoch, 0 FROM raised"
    ") INSERT INTO retriever.outbox (name, collection_id, epoch) SELECT name, id, epoch FROM raised"
)


class WordCounter:
    """One process's counter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> None:
        """Count for ever; outlives every outage."""
        while True:
            try:
                async with await self._connect() as connection:
                    await self._serve(connection)
            except Exception as error:  # the service goes on, and so must its counter
                telemetry.logger().warning("the word counter waits", cause=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _connect(self) -> psycopg.AsyncConnection:
        settings = self._settings
        return await psycopg.AsyncConnection.connect(
            settings.database_url.get_secret_value(),
            autocommit=True,
            connect_timeout=settings.connect_timeout_seconds,
            application_name="quintet-retriever-words",
            keepalives_idle=10,
            tcp_user_timeout=10_000,
        )

    async def _serve(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            cursor = await connection.execute(_DUE)
            for tenant, collection in await cursor.fetchall():
                await count(connection, tenant, collection)
            await asyncio.sleep(self._settings.word_count_interval_seconds)


async def count(connection: psycopg.AsyncConnection, tenant: str, collection: int) -> bool:
    """Count the words of a tenant's collection and raise its epoch; return whether we did: not
    where another is at it, or the collection was deleted."""
    try:
        async with connection.transaction():
            await connection.execute(_FOR_TENANT, [tenancy.SETTING, tenant])
            await connection.execute(_SHARE, [collection])
            cursor = await connection.execute(_COUNT, [collection])
            if await cursor.fetchone() != (True,):
                return False
            await connection.execute(_RAISE, [collection])
    except errors.UndefinedTable:
        return False
    _COUNTS.inc()
    return True
