"""Works on a stream of items, several at once, no faster than it is consumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


async def each(
    items: AsyncIterator[Item], work: Callable[[Item], Awaitable[Result]], *, in_flight: int
) -> AsyncGenerator[Result]:
    """Yield `work(item)` for each item as it is done, at most `in_flight` at once.

    No item is read while as many are under way, so the sender feels the pace. When
    the consumer leaves, or a call of `work` raises, the others are cancelled.
    """
    tasks: set[asyncio.Future[Result]] = set()
    reading: asyncio.Future[Item | object] | None = asyncio.ensure_future(anext(items, _END))
    try:
        while reading is not None or tasks:
            waiting: set[asyncio.Future[Any]] = set(tasks)
            if reading is not None and len(tasks) < in_flight:
                waiting.add(reading)
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading in done:
                item = reading.result()
                if item is _END:
                    reading = None
                else:
                    tasks.add(asyncio.ensure_future(work(cast(Item, item))))
                    reading = asyncio.ensure_future(anext(items, _END))
            for task in tasks & done:
                tasks.discard(task)
                yield task.result()
    finally:
        left: list[asyncio.Future[Any]] = [*tasks]
        if reading is not None:
            left.append(reading)
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)
