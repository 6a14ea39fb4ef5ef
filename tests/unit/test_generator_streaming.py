"""Events from a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from quintet_generator.streaming import StillWanted, stream_from_thread
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor


@pytest_asyncio.fixture
async def executor() -> AsyncIterator[BoundedExecutor]:
    executor = BoundedExecutor("test", threads=1, queue=1)
    yield executor
    await executor.close()


async def idle(executor: BoundedExecutor) -> None:
    async with asyncio.timeout(5):
        while executor.admitted:  # noqa: ASYNC110 - the executor tells nobody
            await asyncio.sleep(0.001)


class Endless:
    """Counts until nobody wants it, one step for each permission given."""

    def __init__(self) -> None:
        self.steps = 0
        self.may_step = threading.Semaphore(0)

    def __call__(self, still_wanted: StillWanted) -> Iterator[int]:
        while still_wanted():
            self.may_step.acquire()
            self.steps += 1
            yield self.steps


async def test_items_come_in_order_and_the_stream_ends(executor: BoundedExecutor) -> None:
    stream = stream_from_thread(executor, lambda _: iter(range(100)))
    assert [it async for it in stream] == list(range(100))


async def test_what_the_thread_raises_arrives_after_its_items(executor: BoundedExecutor) -> None:
    def produce(_: StillWanted) -> Iterator[int]:
        yield 1
        raise RuntimeError("broken")

    stream = stream_from_thread(executor, produce)
    assert await anext(stream) == 1
    with pytest.raises(RuntimeError, match="broken"):
        await anext(stream)


async def test_a_consumer_who_leaves_ends_the_work_within_one_step(
    executor: BoundedExecutor,
) -> None:
    endless = Endless()
    endless.may_step.release()
    async with aclosing(stream_from_thread(executor, endless)) as items:
        assert await anext(items) == 1
    endless.may_step.release(100)
    await idle(executor)
    assert endless.steps <= 2


async def test_who_waits_and_leaves_frees_the_place(executor: BoundedExecutor) -> None:
    endless = Endless()
    running = stream_from_thread(executor, endless)
    endless.may_step.release()
    await anext(running)
    waiting = asyncio.ensure_future(anext(stream_from_thread(executor, lambda _: iter([1]))))
    await asyncio.sleep(0.01)
    with pytest.raises(ServiceError) as caught:
        await anext(stream_from_thread(executor, lambda _: iter([1])))
    assert caught.value.reason is Reason.OVERLOADED
    waiting.cancel()
    await asyncio.sleep(0.01)
    third = asyncio.ensure_future(anext(stream_from_thread(executor, lambda _: iter([3]))))
    await asyncio.sleep(0.01)
    await running.aclose()
    endless.may_step.release(100)
    assert await asyncio.wait_for(third, 5) == 3
