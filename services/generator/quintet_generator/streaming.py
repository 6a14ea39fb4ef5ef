"""Events from a thread, as an asynchronous stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

from quintet_servicekit.executor import BoundedExecutor

T = TypeVar("T")

StillWanted = Callable[[], bool]


async def stream_from_thread(
    executor: BoundedExecutor, produce: Callable[[StillWanted], Iterator[T]]
) -> AsyncGenerator[T, None]:
    """Yield what `produce` yields on one of the executor's threads.

    `produce` is given a function that turns false when the consumer has left, and
    should look at it before each step; a consumer who leaves while waiting for a
    thread leaves the queue. A slow consumer doesn't hold up the thread: what it has
    not taken waits in memory, so `produce` must be bounded.

    Raises what `produce` raises, and OVERLOADED when the executor's queue is full.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | _End] = asyncio.Queue()
    left = threading.Event()

    def work() -> None:
        for item in produce(lambda: not left.is_set()):
            loop.call_soon_threadsafe(items.put_nowait, item)

    task = asyncio.create_task(executor.run(work))
    # Both the items and the task's end come through the loop, so this is the last.
    task.add_done_callback(lambda _: items.put_nowait(_End()))
    try:
        while not isinstance(item := await items.get(), _End):
            yield item
        await task
    finally:
        left.set()
        task.cancel()


class _End:
    """Follows the last item."""
