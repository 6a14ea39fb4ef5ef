"""Announces a committed write before its writer is told that it was done.

When Redis doesn't take the news, those who trust older news must stop first: the
relay's word is taken back in the database, and the writer waits until it has expired.
docs/adr/0005 proves that no relay can renew it past this write.
"""

from __future__ import annotations

import asyncio

from prometheus_client import Counter
from psycopg import sql

from quintet_retriever.database import Database
from quintet_servicekit.cache import AwayError
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.epochs import LEASE_SECONDS, EpochNews, EpochWatch
from quintet_servicekit.postgres.database import Operation, Statement

_REVOCATIONS = Counter(
    "quintet_epoch_revocations_total",
    "Writes whose epoch could not be announced, so that trust in older ones was taken back.",
)

_REVOKE = Statement(sql.SQL("SELECT retriever.revoke_trust() AS seconds"))


class Announcer:
    """Implements the engine's `News`. Without `news` nobody follows any; `watch` is what
    this replica knows itself."""

    def __init__(self, news: EpochNews | None, watch: EpochWatch, database: Database) -> None:
        self._news = news
        self._watch = watch
        self._database = database

    async def announce(self, name: str, epoch: Epoch) -> None:
        """Return when no replica trusts an epoch of the collection before this one, but for
        those that the news have yet to reach. Takes `LEASE_SECONDS` at most.

        Raises `ServiceError` when neither Redis nor the database can be told.
        """
        if self._news is None:
            return
        # A replica never serves less than what it wrote itself.
        self._watch.told(name, epoch)
        try:
            await self._news.announce(name, epoch)
        except AwayError:
            await self._revoke()

    async def _revoke(self) -> None:
        _REVOCATIONS.inc()
        (row,) = await self._database.run(Operation("UPDATE", "relay"), _REVOKE)
        # By the database's clock alone; those who trust allow for their own.
        if row["seconds"] > 0:
            await asyncio.sleep(min(row["seconds"], LEASE_SECONDS))
