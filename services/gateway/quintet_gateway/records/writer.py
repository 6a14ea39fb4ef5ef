"""Writes records in batches, behind the answers' backs, and looks after what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol
from uuid import UUID

from prometheus_client import Counter, Gauge

from quintet_gateway.records.entry import Entry
from quintet_gateway.records.store import RefusedError, Row
from quintet_servicekit import telemetry
from quintet_servicekit.errors import ServiceError

BATCH = 200
"""Records of one statement. At 3 KB each it has 600 KB."""
AT_ONCE = 8
"""Records that are composed before others have a turn: some 0.3 ms of the event loop."""
TRIM = 10_000
"""Records that one statement drops."""

RECORDS = Counter(
    "quintet_answer_records_total",
    "Records of answers, by what became of them: written; or dropped because the queue was full, "
    "because the database refused them, or because the process ended.",
    ("outcome",),
)
for _outcome in ("written", "queue_full", "refused", "ended"):
    # From 0 on, so that the first one counts as an increase.
    RECORDS.labels(_outcome)
WAITING = Gauge("quintet_answer_records_waiting", "Records of answers that wait to be written.")


class Store(Protocol):
    """Where records are written; see `store.PostgresRecords`."""

    async def insert(self, rows: Sequence[Row]) -> None: ...
    async def renew_days(self, kept: int, *, waits: bool) -> None: ...
    async def trim(self, most: int, at_once: int) -> int: ...


class RecordWriter:
    """Takes entries and writes them, `interval` seconds later at the most.

    While the database is away entries wait, at most `most` of them; those that come then
    are dropped, and counted. `packed` makes a record of an entry.
    """

    def __init__(
        self, store: Store, packed: Callable[[Entry], bytes], *, most: int, interval: float
    ) -> None:
        self._store = store
        self._packed = packed
        self._most = most
        self._interval = interval
        # In the order in which they came. They stay until they are written, to be found.
        self._waiting: dict[UUID, Entry] = {}
        self._full = asyncio.Event()

    def put(self, entry: Entry) -> None:
        """Take an entry; never waits."""
        if len(self._waiting) >= self._most:
            RECORDS.labels("queue_full").inc()
            return
        self._waiting[entry.id] = entry
        if len(self._waiting) >= BATCH:
            self._full.set()

    def waiting(self, tenant: str, answer_id: UUID) -> Entry | None:
        """Return a tenant's entry of that id, if it is not written yet."""
        entry = self._waiting.get(answer_id)
        return entry if entry is not None and entry.tenant == tenant else None

    def newest(self, tenant: str, key: str) -> Entry | None:
        """Return the newest entry of a tenant's key that is not written yet."""
        whose = (tenant, key)
        newest_first = reversed(self._waiting.values())
        return next((it for it in newest_first if (it.tenant, it.key) == whose), None)

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            if len(self._waiting) < BATCH:
                self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._full.wait()
            WAITING.set(len(self._waiting))
            # What comes meanwhile waits for a batch of its own.
            if self._waiting and not await self._write():
                # A server that is away is asked again after a pause, however many come.
                await asyncio.sleep(self._interval)

    async def end(self, seconds: float) -> None:
        """Write what waits, within `seconds`; the rest is dropped, counted and logged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting and await self._write():
                    pass
        if self._waiting:
            # Nobody may scrape the counter of a process that ends.
            telemetry.logger().warning("records were dropped at the end", many=len(self._waiting))
            RECORDS.labels("ended").inc(len(self._waiting))
            self._waiting.clear()

    async def _write(self) -> bool:
        """Write a batch; return whether the database took or refused it."""
        refused: list[Exception] = []
        rows = await self._composed(refused)
        answered = not rows or await self._insert(rows, refused)
        if refused:
            telemetry.logger().error(
                "records of answers were refused", many=len(refused), exc_info=refused[0]
            )
            RECORDS.labels("refused").inc(len(refused))
        return answered

    async def _composed(self, refused: list[Exception]) -> list[Row]:
        """Return the rows of a batch; without those that cannot be made, which are dropped."""
        rows = []
        for number, entry in enumerate(list(islice(self._waiting.values(), BATCH)), start=1):
            try:
                rows.append(Row(entry.id, entry.tenant, entry.key, self._packed(entry)))
            except Exception as error:  # else it would stand in the others' way for ever
                refused.append(error)
                del self._waiting[entry.id]
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return rows

    async def _insert(self, rows: Sequence[Row], refused: list[Exception]) -> bool:
        """Write rows; return whether the database took or refused each of them."""
        try:
            await self._store.insert(rows)
        except ServiceError:
            return False
        except RefusedError as error:
            if len(rows) > 1:  # one that is refused takes no others with it
                half = len(rows) // 2
                return await self._insert(rows[:half], refused) and await self._insert(
                    rows[half:], refused
                )
            refused.append(error)
        else:
            RECORDS.labels("written").inc(len(rows))
        for row in rows:
            del self._waiting[row.id]
        return True


class Upkeep:
    """Makes room: by day, and where a tenant has more than `most` records."""

    def __init__(self, store: Store, *, days: int, most: int, interval: float) -> None:
        self._store = store
        self._days = days
        self._most = most
        self._interval = interval

    async def begin(self) -> None:
        """Make the partitions that records of today need. Raises `ServiceError`."""
        await self._store.renew_days(self._days, waits=True)

    async def once(self) -> None:
        """Drop what is too old or too much. Raises `ServiceError`."""
        await self._store.renew_days(self._days, waits=False)
        while await self._store.trim(self._most, TRIM) == TRIM:
            pass

    async def run(self) -> None:
        """Look after the records, until cancelled."""
        while True:
            try:
                await self.once()
            except ServiceError as error:
                telemetry.logger().warning("records were not looked after", cause=error.reason)
            await asyncio.sleep(self._interval)
