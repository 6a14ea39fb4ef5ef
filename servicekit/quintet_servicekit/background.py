"""Work that goes on beside the calls, for as long as what it belongs to is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from quintet_servicekit import telemetry

PAUSE_SECONDS = 5.0
"""Before work that failed begins anew: often enough to go on soon, seldom enough for a log."""


@asynccontextmanager
async def beside(
    work: Callable[[], Coroutine[Any, Any, None]], name: str, *, pause: float = PAUSE_SECONDS
) -> AsyncIterator[None]:
    """Have `work()` done while the context lasts, and ended with it.

    Nobody waits for such work, so that its failure would be seen by nobody: it is logged, and
    the work begins anew `pause` seconds later. Work that returns is done.
    """

    async def until_done() -> None:
        while True:
            try:
                return await work()
            except Exception as error:
                telemetry.logger().error("background work failed", work=name, exc_info=error)
            await asyncio.sleep(pause)

    task = asyncio.create_task(until_done(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
