import asyncio
from collections.abc import AsyncIterator

import pytest

from quintet_gateway.concurrently import each


async def numbers(count: int, read: list[int]) -> AsyncIterator[int]:
    for number in range(count):
        read.append(number)
        yield number


async def test_every_item_is_worked_on_once() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    results = [result async for result in each(numbers(50, []), work, in_flight=4)]
    assert sorted(results) == [number * 2 for number in range(50)]


async def test_no_more_than_in_flight_items_are_under_way_or_read_ahead() -> None:
    read: list[int] = []
    under_way = most = 0

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        # One more may have been read and wait its turn.
        assert len(read) <= number + 3 + 1 + 3
        return number

    async for _ in each(numbers(30, read), work, in_flight=3):
        pass
    assert most == 3


async def test_a_consumer_who_leaves_cancels_the_work_under_way() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> int:
        if number == 0:
            return number
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    results = each(numbers(3, []), work, in_flight=3)
    assert await anext(results) == 0
    await asyncio.sleep(0)
    await results.aclose()
    assert set(cancelled) <= {1, 2}
    assert len(asyncio.all_tasks()) == 1


async def test_a_failure_of_the_work_reaches_the_consumer() -> None:
    async def work(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        async for _ in each(numbers(3, []), work, in_flight=1):
            pass


async def test_a_failure_of_the_source_reaches_the_consumer() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("source")

    async def work(number: int) -> int:
        return number

    with pytest.raises(ValueError, match="source"):
        async for _ in each(broken(), work, in_flight=2):
            pass


async def test_items_under_way_weigh_no_more_than_allowed_and_a_heavy_one_goes_alone() -> None:
    under_way: list[int] = []
    most = 0

    async def work(number: int) -> int:
        nonlocal most
        under_way.append(number)
        most = max(most, len(under_way))
        assert sum(under_way) <= 10 or len(under_way) == 1
        await asyncio.sleep(0.001)
        under_way.remove(number)
        return number

    async def weights() -> AsyncIterator[int]:
        for number in (1, 2, 3, 4, 50, 5, 5, 5, 1):
            yield number

    done = each(weights(), work, in_flight=8, weigh=lambda it: it, max_weight=10)
    assert sorted([number async for number in done]) == [1, 1, 2, 3, 4, 5, 5, 5, 50]
    assert most == 4
