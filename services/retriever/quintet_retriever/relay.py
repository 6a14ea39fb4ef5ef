"""The relay: announces what a crash left unannounced, and vouches for what is announced.

Each retriever runs one; of those of a database exactly one is active, which holds an
advisory lock on its own connection. The others wait for that lock. Each cycle drains
the outbox and then extends the trust in all news; docs/adr/0005 says why in this order.
It also prunes the changes and the request ids, and looks what the database holds. Nothing
waits for it, and it outlives every outage.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import psycopg
from prometheus_client import Counter, Gauge
from psycopg.rows import DictRow, dict_row

from quintet_retriever import index_metrics
from quintet_retriever.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.cache import AwayError
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.epochs import LEASE_SECONDS, EpochNews, Place

_LOCK = 0x5155494E54455403
"""Key of the advisory lock: "QUINTET" in ASCII, and 3."""

BATCH = 10_000
"""Rows of the outbox that are drained at once: 1 MB of news."""
_PRUNE_SECONDS = 30.0
_MEASURE_SECONDS = 15.0
"""How often what the database holds is looked up: as often as is usually scraped."""
_RECONNECT_SECONDS = 1.0
"""Longest pause after the database failed, as long as readiness' own."""

_ACTIVE = Gauge("quintet_relay_active", "1 while this process is its database's active relay.")
_ROWS = Gauge(
    "quintet_outbox_rows", "Rows in the outbox at the active relay's last look; 0 of the others."
)
_OLDEST = Gauge("quintet_outbox_oldest_seconds", "Age of the oldest of these rows; 0 if none.")
_RENEWALS = Counter("quintet_relay_renewals_total", "Times that trust in the news was extended.")

# All times are the database's: those who compare them later compare one clock.
# What belongs to all tenants goes by functions of the tables' owner (migration 0009).
_STATE = "SELECT retriever.revocations() AS revocations"
_OUTBOX = "SELECT * FROM retriever.outbox_rows(%s)"
_DONE = "SELECT retriever.outbox_done(%s::bigint[])"
_RENEW = "SELECT retriever.extend_trust(%s, %s) AS until"
_PRUNE = "SELECT retriever.prune(%s, %s)"


class Relay:
    """One process's relay. Without `news` it empties the outbox and vouches for nothing."""

    def __init__(self, settings: Settings, news: EpochNews | None) -> None:
        self._settings = settings
        self._news = news
        self._wake = asyncio.Event()
        self._next_prune = 0.0
        self._next_measure = 0.0
        self.cycles = 0
        """Cycles that were completed while active."""

    def drain_now(self) -> None:
        """Begin the next cycle at once."""
        self._wake.set()

    async def run(self) -> None:
        """Be a relay for ever: a standby until the lock is free, then the active one."""
        while True:
            try:
                async with await self._connect() as connection:
                    await self._serve(connection)
            except Exception as error:  # the service goes on, and so must its relay
                telemetry.logger().warning("the relay waits", cause=type(error).__name__)
            # Relays that lose one server together do not come back together.
            await asyncio.sleep(random.uniform(0.5, 1.0) * _RECONNECT_SECONDS)  # noqa: S311

    async def _connect(self) -> psycopg.AsyncConnection[DictRow]:
        settings = self._settings
        return await psycopg.AsyncConnection.connect(
            settings.database_url.get_secret_value(),
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=settings.connect_timeout_seconds,
            application_name="quintet-retriever-relay",
            keepalives_idle=10,
            tcp_user_timeout=10_000,
        )

    async def _serve(self, connection: psycopg.AsyncConnection[DictRow]) -> None:
        active = False
        try:
            while True:
                if not active and await self._takes_over(connection):
                    active = True
                    _ACTIVE.set(1)
                    telemetry.logger().info("this is the active relay")
                if active:
                    await self._cycle(connection)
                await self._pause()
        finally:
            if active:
                # What was seen last would outlast what the next active relay tells.
                for gauge in (_ACTIVE, _ROWS, _OLDEST):
                    gauge.set(0)
                index_metrics.forget()
                self._next_measure = 0.0

    async def _takes_over(self, connection: psycopg.AsyncConnection[DictRow]) -> bool:
        """Whether we have become the active one, and all that others know is forgotten:
        an earlier relay may have emptied the outbox without announcing it."""
        (row,) = await _rows(connection, "SELECT pg_try_advisory_lock(%s) AS locked", _LOCK)
        if not row["locked"]:
            return False
        if self._news is not None:
            try:
                await self._news.reset()
            except AwayError:
                await _rows(connection, "SELECT pg_advisory_unlock(%s)", _LOCK)
                return False
        return True

    async def _cycle(self, connection: psycopg.AsyncConnection[DictRow]) -> None:
        (state,) = await _rows(connection, _STATE)
        try:
            drained = await self._drain(connection)
            if self._news is not None and drained:
                await self._vouch(connection, self._news, state["revocations"])
        except AwayError:
            pass  # Counted, and logged by the kit. What is in the outbox stays there.
        if time.monotonic() >= self._next_prune:
            settings = self._settings
            await connection.execute(
                _PRUNE, [settings.keep_changes, settings.keep_requests_seconds]
            )
            self._next_prune = time.monotonic() + _PRUNE_SECONDS
        if time.monotonic() >= self._next_measure:
            await index_metrics.measure(connection)
            self._next_measure = time.monotonic() + _MEASURE_SECONDS
        self.cycles += 1

    async def _drain(self, connection: psycopg.AsyncConnection[DictRow]) -> bool:
        """Announce what is in the outbox; return whether that was all."""
        rows = await _rows(connection, _OUTBOX, BATCH)
        _ROWS.set(len(rows))
        _OLDEST.set(max((row["age"] for row in rows), default=0.0))
        if not rows:
            return True
        if self._news is not None:
            newest: dict[Place, Epoch] = {}
            for row in rows:
                place = Place(row["tenant"], row["name"])
                epoch = Epoch(row["collection_id"], row["epoch"])
                newest[place] = max(epoch, newest.get(place, epoch))
            await self._news.announce_all(newest.items())
        await connection.execute(_DONE, [[row["id"] for row in rows]])
        if len(rows) < BATCH:
            return True
        self.drain_now()
        return False

    async def _vouch(
        self, connection: psycopg.AsyncConnection[DictRow], news: EpochNews, revocations: int
    ) -> None:
        """Extend the trust, unless a writer has taken it back since the count was read."""
        (row,) = await _rows(connection, _RENEW, LEASE_SECONDS, revocations)
        if row["until"] is not None:
            await news.extend_trust(row["until"])
            _RENEWALS.inc()
        else:
            self.drain_now()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._settings.relay_interval_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


async def _rows(
    connection: psycopg.AsyncConnection[DictRow], query: str, *values: Any
) -> list[DictRow]:
    return await (await connection.execute(query.encode(), values)).fetchall()
