"""Counts what is in the outbox, in batches, behind the calls' backs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from prometheus_client import Counter, Gauge

from quintet_gateway.usage.entry import Entry, Sums
from quintet_gateway.usage.spool import Segment, Spool
from quintet_gateway.usage.store import CountedError
from quintet_servicekit import telemetry
from quintet_servicekit.errors import ServiceError
from quintet_servicekit.executor import BoundedExecutor

BATCH_BYTES = 256 * 1024
"""What is counted in one transaction: some thousand calls."""
ADOPT_SECONDS = 60.0
"""How often it is looked for what other processes have left in the same folder."""

ENTRIES = Counter(
    "quintet_usage_entries_total",
    "Entries of usage, by what became of them: counted in the database, or lost because the "
    "outbox could not be written.",
    ("outcome",),
)
for _outcome in ("counted", "lost"):
    # From 0 on, so that the first one counts as an increase.
    ENTRIES.labels(_outcome)
WAITING = Gauge("quintet_usage_outbox_bytes", "Size of the outbox that is not counted yet.")


class Store(Protocol):
    """Where usage is counted; see `store.UsageStore`."""

    async def counted(self, spool: UUID) -> int: ...
    async def count(self, spool: UUID, before: int, now: int, sums: Sums) -> None: ...
    async def forget_marks(self) -> None: ...


class UsageWriter:
    """Takes entries into the `spool` and counts them, `interval` seconds later at the most."""

    def __init__(
        self, store: Store, spool: Spool, executor: BoundedExecutor, *, interval: float
    ) -> None:
        self._store = store
        self._spool = spool
        self._executor = executor
        self._interval = interval
        self._marks: dict[UUID, int] = {}
        self._synced = 0

    def put(self, entry: Entry) -> None:
        """Take an entry: once this returns the end of the process does not lose it."""
        try:
            self._spool.append(entry)
        except OSError as error:
            ENTRIES.labels("lost").inc()
            telemetry.logger().error("usage was lost: the outbox cannot be written", exc_info=error)

    async def run(self) -> None:
        """Count what comes, until cancelled."""
        loop = asyncio.get_running_loop()
        adopted = loop.time()
        with suppress(ServiceError):
            await self._store.forget_marks()
        while True:
            await asyncio.sleep(self._interval)
            await self.once()
            if loop.time() - adopted > ADOPT_SECONDS:
                self._spool.adopt()
                adopted = loop.time()

    async def once(self) -> None:
        """Count all that there is; what the database does not take now is made to outlast
        the machine, and stays."""
        try:
            for segment in list(self._spool.older):
                await self._count(segment)
                self._spool.older.remove(segment)
                self._marks.pop(segment.id)
                segment.drop()
            await self._count(self._spool.current)
        except ServiceError:
            if self._synced != self._spool.current.size:
                self._synced = self._spool.current.size
                await self._executor.run(self._spool.current.sync)
        WAITING.set(
            sum(
                it.size - self._marks.get(it.id, 0)
                for it in (self._spool.current, *self._spool.older)
            )
        )

    async def end(self, seconds: float) -> None:
        """Count what waits, within `seconds`; the rest is left to the next process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.once()
        self._spool.close()

    async def _count(self, segment: Segment) -> None:
        """Count what there is now; what comes meanwhile waits for more. Raises `ServiceError`
        while the database is away."""
        size = segment.size
        while True:
            mark = self._marks.get(segment.id)
            if mark is None:
                mark = self._marks[segment.id] = await self._store.counted(segment.id)
            if mark >= size:
                return
            entries, sums, end = await self._executor.run(_read, segment, mark)
            if end == mark:
                return  # a torn line, of a machine that stopped
            try:
                await self._store.count(segment.id, mark, end, sums)
            except CountedError:
                # The answer to a transaction was lost and not the transaction.
                del self._marks[segment.id]
                continue
            except BaseException:
                # Nobody knows whether it was counted: the mark does.
                self._marks.pop(segment.id, None)
                raise
            self._marks[segment.id] = end
            ENTRIES.labels("counted").inc(entries)


def _read(segment: Segment, start: int) -> tuple[int, Sums, int]:
    entries, end = segment.read(start, BATCH_BYTES)
    return len(entries), Sums().add(entries), end
