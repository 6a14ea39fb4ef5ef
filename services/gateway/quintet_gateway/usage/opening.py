"""Puts together what keeps usage."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from quintet_gateway.database import Database
from quintet_gateway.usage.settings import UsageSettings
from quintet_gateway.usage.spool import Spool
from quintet_gateway.usage.store import UsageStore
from quintet_gateway.usage.writer import UsageWriter
from quintet_servicekit.background import beside
from quintet_servicekit.executor import BoundedExecutor

END_SECONDS = 3.0
"""How long the end of a process waits for usage to be counted."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Who takes usage, and who has its sums."""

    writer: UsageWriter
    store: UsageStore


@asynccontextmanager
async def open_usage(
    settings: UsageSettings, database: Database | None
) -> AsyncIterator[Usage | None]:
    """Yield what keeps usage; None without a database. Raises `OSError` for a folder that
    cannot be used."""
    if database is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        folder = settings.folder
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="quintet-usage-")
            folder = Path(stack.enter_context(temporary))
        executor = BoundedExecutor("usage", threads=1, queue=3)
        stack.push_async_callback(executor.close)
        store = UsageStore(database)
        writer = UsageWriter(
            store, Spool.opened(folder), executor, interval=settings.interval_seconds
        )

        async def work() -> None:
            await database.migrated.wait()
            await writer.run()

        stack.push_async_callback(writer.end, END_SECONDS)
        async with beside(work, "usage"):
            yield Usage(writer, store)
