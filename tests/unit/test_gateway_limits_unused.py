"""What is given back of limits: by who is settled with a share, and by who left too early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from quintet_gateway.admission.demand import Demand, Places, Window
from quintet_gateway.admission.limiter import Limiter
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.admission.shared import SharedLimits
from quintet_servicekit.cache import Remote

TOKENS = Demand((Window("tokens", "", 1_000, 1e9),), 800)


async def test_of_a_share_no_more_is_given_back_than_was_taken_of_it() -> None:
    limiter = Limiter(LimitSettings(replicas=10), None)
    # A share of 100 has no 800: all of it is taken.
    verdict = await limiter.take(TOKENS)
    assert not (await limiter.take(TOKENS)).admitted
    limiter.settle(TOKENS, verdict, 60)
    # 60 of the 100 are spent, and not none of them.
    assert not (await limiter.take(Demand(TOKENS.windows, 41))).admitted
    assert (await limiter.take(Demand(TOKENS.windows, 40))).admitted


class Redis:
    """Replies to scripts when it is let to; keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Sequence[str], Sequence[Any]]] = []
        self.commands: list[Any] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    def key(self, key: str) -> str:
        return key

    async def scripts(self, _: Any, calls: Sequence[Any]) -> list[Sequence[int]]:
        self.sent += calls
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [(0, 0, 1, 0, 0) for _ in calls]

    async def pipeline(self, commands: Sequence[Any]) -> list[Any]:
        self.commands += commands
        return [1 for _ in commands]


PLACE = Places("streams", "streams", 1)


async def left_early(limits: SharedLimits, demand: Demand) -> None:
    task = asyncio.create_task(limits.take(demand))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


async def test_what_a_caller_who_left_was_given_is_given_back() -> None:
    redis = Redis()
    limits = SharedLimits(cast(Remote, redis), lease_seconds=30)
    demand = Demand(TOKENS.windows, 800, (PLACE,), "me")
    leaving = asyncio.create_task(limits.take(demand))
    await redis.begun.wait()
    leaving.cancel()
    await asyncio.wait({leaving})
    redis.gate.set()
    await limits.aclose()
    taken, back = redis.sent
    assert (taken[1][0], taken[1][7]) == (0, 800)
    assert (back[0], back[1][0], back[1][7]) == (["tokens"], 1, -800)
    assert redis.commands == [("ZREM", "streams", "me")]


async def test_who_leaves_in_the_moment_of_the_verdict_gets_back_what_it_gave() -> None:
    redis = Redis()
    limits = SharedLimits(cast(Remote, redis), lease_seconds=30)
    leaving = asyncio.create_task(limits.take(TOKENS))
    await redis.begun.wait()
    redis.gate.set()
    # After the verdict is there, and before its caller runs on.
    asyncio.get_running_loop().call_soon(leaving.cancel)
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    await limits.aclose()
    assert [call[1][7] for call in redis.sent] == [800, -800]


async def test_nothing_is_taken_for_who_left_before_it_was_asked() -> None:
    redis = Redis()
    limits = SharedLimits(cast(Remote, redis), lease_seconds=30)
    first = asyncio.create_task(limits.take(TOKENS))
    await redis.begun.wait()
    await left_early(limits, TOKENS)
    redis.gate.set()
    assert (await first).admitted
    await limits.aclose()
    assert len(redis.sent) == 1


async def test_a_fault_reaches_those_who_wait_and_the_next_are_asked_for() -> None:
    redis = Redis()
    redis.gate.set()
    redis.error = ZeroDivisionError()
    limits = SharedLimits(cast(Remote, redis), lease_seconds=30)
    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await limits.take(TOKENS)
        redis.error = None
        assert (await limits.take(TOKENS)).admitted


async def test_a_place_that_is_left_while_it_is_renewed_is_not_kept() -> None:
    redis = Redis()
    redis.gate.set()
    limiter = Limiter(LimitSettings(), cast(Remote, redis))
    shared = limiter._shared
    assert shared is not None
    for holder in ("stays", "leaves"):
        await limiter.take(Demand((), places=(PLACE,), holder=holder))
    redis.sent.clear()
    redis.gate.clear()
    redis.begun.clear()
    renewing = asyncio.create_task(limiter._hold(shared))
    await redis.begun.wait()
    limiter.release("leaves")
    await asyncio.wait(set(limiter._tasks))
    redis.gate.set()
    await renewing
    # In one round trip; and the one who left is gone after it, and not only before.
    assert [call[1][1] for call in redis.sent] == ["stays", "leaves"]
    assert redis.commands == [("ZREM", "streams", "leaves")] * 2
