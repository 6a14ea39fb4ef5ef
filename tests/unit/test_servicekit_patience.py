"""One timer bounds all waits of one length."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.patience import Patience


async def test_each_wait_has_its_own_time() -> None:
    patience = Patience(0.05, "too late")
    ended: list[int] = []

    async def wait(number: int) -> None:
        with pytest.raises(ServiceError, match="too late") as raised:
            async with patience.bound():
                await asyncio.Event().wait()
        assert raised.value.reason is Reason.DEADLINE_EXCEEDED
        assert raised.value.metadata == {"hop": "caller"}
        ended.append(number)

    waits = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(3):
        waits.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0.01)
    async with patience.bound():
        pass  # in time
    async with asyncio.timeout(20):
        await asyncio.gather(*waits)
    assert ended == [0, 1, 2]
    assert loop.time() - began >= 0.06


async def test_one_who_takes_long_to_leave_holds_up_no_other() -> None:
    patience, left = Patience(0.02, "too late"), asyncio.Event()

    async def slow_to_leave() -> None:
        async with patience.bound():
            try:
                await asyncio.Event().wait()
            finally:
                await left.wait()

    leaving = asyncio.create_task(slow_to_leave())
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        with pytest.raises(ServiceError):
            async with patience.bound():
                await asyncio.Event().wait()
        left.set()
        with pytest.raises(ServiceError):
            await leaving


async def test_a_wait_that_is_cancelled_is_no_longer_bounded() -> None:
    patience = Patience(0.02, "too late")

    async def wait() -> None:
        async with patience.bound():
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ServiceError):
        async with asyncio.timeout(20), patience.bound():
            await asyncio.Event().wait()


async def test_waits_that_end_in_time_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at: Callable[..., Any] = loop.call_at
    timers = []

    def counted(when: float, *rest: Any, **more: Any) -> Any:
        timers.append(when)
        return call_at(when, *rest, **more)

    monkeypatch.setattr(loop, "call_at", counted)
    patience = Patience(600, "too late")
    for _ in range(100):
        async with patience.bound():
            await asyncio.sleep(0)
    assert len(timers) == 1
