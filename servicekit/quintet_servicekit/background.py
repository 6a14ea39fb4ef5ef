"""Work that goes on beside the calls, for as long as what it belongs to is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from quintet_servicekit import telemetry

PAUSE_SECONDS = 5.0
"""Before work that failed begins anew: often enough to go on soon, seldom enough for a log."""

AGAIN_SECONDS = 1.0
"""How long a cancelled task may clean up before it is told again."""


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
        await end(task)


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and return when it has ended."""
    while not task.done():
        # More than once, because until Python 3.12 wait_for, which drivers' pools use, can
        # swallow a cancellation.
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_SECONDS)
