"""Works on a stream of items, several at once, no faster than it is consumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


async def each(
    items: AsyncIterator[Item],
    work: Callable[[Item], Awaitable[Result]],
    *,
    in_flight: int,
    weigh: Callable[[Item], int] = lambda _: 0,
    max_weight: int = 0,
) -> AsyncGenerator[Result]:
    """Yield `work(item)` for each item as it is done, at most `in_flight` at once and
    `max_weight` together, as `weigh` weighs them; an item heavier than that goes alone.

    No more is read than may be begun, but for one item that waits for its turn, so the
    sender feels the pace. When the consumer leaves, or a call of `work` raises, the
    others are cancelled.
    """
    tasks: dict[asyncio.Future[Result], int] = {}
    reading: asyncio.Future[Item | object] | None = asyncio.ensure_future(anext(items, _END))
    try:
        while reading is not None or tasks:
            waiting: set[asyncio.Future[Any]] = set(tasks)
            if reading is not None and not reading.done() and len(tasks) < in_flight:
                waiting.add(reading)
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in tasks if task.done()]:
                del tasks[task]
                yield task.result()
            if reading is None or not reading.done():
                continue
            item = cast(Item, reading.result())
            if item is _END:
                reading = None
                continue
            weight = weigh(item)
            fits = len(tasks) < in_flight and sum(tasks.values()) + weight <= max_weight
            if fits or not tasks:
                tasks[asyncio.ensure_future(work(item))] = weight
                reading = asyncio.ensure_future(anext(items, _END))
    finally:
        left: list[asyncio.Future[Any]] = [*tasks]
        if reading is not None:
            left.append(reading)
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)
