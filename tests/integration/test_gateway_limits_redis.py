"""The limits in a real Valkey: exact for all replicas, and what holds without it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from redis import Redis

from quintet_gateway.admission.demand import Demand, Places, Verdict, Window
from quintet_gateway.admission.limiter import Limiter, open_limiter
from quintet_gateway.admission.local import LocalLimits
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.admission.shared import SharedLimits
from quintet_servicekit.cache import CacheSettings, open_remote
from quintet_servicekit.errors import Reason, ServiceError

YEAR = 365 * 86_400.0
"""A period in which nothing flows back while a test runs."""


@asynccontextmanager
async def replica(url: str, **fields: object) -> AsyncIterator[Limiter]:
    """A gateway's limits. A loaded machine must not look like a Redis that is gone."""
    redis = CacheSettings(redis_url=SecretStr(url), redis_timeout_seconds=2)
    async with AsyncExitStack() as stack:
        remote = await stack.enter_async_context(open_remote(redis))
        limits = LimitSettings.model_validate(fields)
        yield await stack.enter_async_context(open_limiter(limits, remote))


@pytest_asyncio.fixture
async def replicas(redis_url: str) -> AsyncIterator[tuple[Limiter, Limiter]]:
    async with replica(redis_url) as one, replica(redis_url) as other:
        yield one, other


def admitted(verdicts: list[Verdict]) -> int:
    return sum(verdict.admitted for verdict in verdicts)


async def test_of_a_thousand_calls_at_once_over_two_replicas_a_hundred_are_admitted(
    replicas: tuple[Limiter, Limiter],
) -> None:
    demand = Demand((Window("minute", "", 100, YEAR), Window("hour", "", 5_000, YEAR)))
    verdicts = await asyncio.gather(*(replicas[i % 2].take(demand) for i in range(1_000)))
    assert admitted(verdicts) == 100
    assert all(verdict.shared for verdict in verdicts)
    # Those that were refused took nothing of the other window.
    left = await replicas[0].take(Demand((Window("hour", "", 5_000, YEAR),), 0))
    assert left.remaining == 4_900


async def test_a_short_window_admits_its_limit_and_what_flowed_in_meanwhile(
    replicas: tuple[Limiter, Limiter],
) -> None:
    loop = asyncio.get_running_loop()
    demand = Demand((Window("second", "", 50, 1),))
    began = loop.time()
    verdicts = await asyncio.gather(*(replicas[i % 2].take(demand) for i in range(600)))
    took = loop.time() - began
    assert 50 <= admitted(verdicts) <= 50 + took * 50 + 1


async def test_streams_at_once_are_never_more_than_their_limit(
    replicas: tuple[Limiter, Limiter],
) -> None:
    places = (Places("streams", "tenant streams", 5),)
    now, most = 0, 0

    async def call(number: int) -> None:
        nonlocal now, most
        limiter, holder = replicas[number % 2], str(number)
        while not (await limiter.take(Demand((), places=places, holder=holder))).admitted:
            limiter.release(holder)
            await asyncio.sleep(0.001)
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        limiter.release(holder)

    await asyncio.gather(*(call(number) for number in range(40)))
    assert (now, most) == (0, 5)


async def test_the_place_of_a_replica_that_died_is_free_after_its_lease(redis_url: str) -> None:
    places = (Places("streams", "tenant streams", 1),)
    redis = CacheSettings(redis_url=SecretStr(redis_url), redis_timeout_seconds=2)
    async with open_remote(redis) as remote, replica(redis_url, lease_seconds=1) as living:
        assert remote is not None
        # One that never renews what it holds, nor gives it back.
        dead = SharedLimits(remote, lease_seconds=0.2)
        assert (await dead.take(Demand((), places=places, holder="dead"))).admitted
        assert not (await living.take(Demand((), places=places, holder="a"))).admitted
        await asyncio.sleep(0.25)
        assert (await living.take(Demand((), places=places, holder="b"))).admitted
        # The living one's is renewed beyond its first lease.
        await asyncio.sleep(1.3)
        assert not (await dead.take(Demand((), places=places, holder="dead"))).admitted


async def test_a_reservation_is_settled_in_redis(redis_url: str) -> None:
    demand = Demand((Window("tokens", "", 1_000, YEAR),), 800)
    async with replica(redis_url) as other:
        async with replica(redis_url) as one:
            verdict = await one.take(demand)
            assert not (await other.take(demand)).admitted
            one.settle(demand, verdict, 100)
        # It has closed, and so given back what it had.
        assert (await other.take(Demand(demand.windows, 0))).remaining == 900


async def test_what_a_dead_replica_reserved_flows_back_with_time(redis_url: str) -> None:
    demand = Demand((Window("tokens", "", 1_000, 0.5),), 1_000)
    async with replica(redis_url) as dying:
        assert (await dying.take(demand)).admitted
    async with replica(redis_url) as other:
        refused = await other.take(demand)
        assert not refused.admitted
        assert 0 < refused.wait_seconds <= 0.5
        await asyncio.sleep(refused.wait_seconds + 0.001)
        assert (await other.take(demand)).admitted


calls = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a b", "b a"]),
        st.integers(-30, 60),
        st.booleans(),
        st.sampled_from(["", "h1", "h2", "h3"]),
    ),
    max_size=30,
)
SHAPES = {"a": Window("a", "", 50, YEAR), "b": Window("b", "", 20, 2 * YEAR)}


@given(calls=calls)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_redis_says_what_memory_says(
    redis_url: str, calls: list[tuple[str, int, bool, str]]
) -> None:
    async def run() -> None:
        with Redis.from_url(redis_url) as client:
            client.flushall()
        memory = LocalLimits(clock=lambda: 0.0)
        redis = CacheSettings(redis_url=SecretStr(redis_url), redis_timeout_seconds=2)
        async with open_remote(redis) as remote:
            assert remote is not None
            shared = SharedLimits(remote, lease_seconds=60)
            for names, cost, force, holder in calls:
                places = (Places("p", "", 2),) if holder else ()
                windows = tuple(SHAPES[name] for name in names.split())
                cost = cost if force else abs(cost) + 1
                demand = Demand(windows, cost, places, holder, force)
                one, other = await shared.take(demand), memory.take(demand)
                assert one.admitted == other.admitted
                if one.limit != other.limit:
                    # Both were as tight: while Redis looks, time goes on, and decides.
                    assert one.admitted and part_left(one) == pytest.approx(part_left(other))
                else:
                    assert abs(one.remaining - other.remaining) <= 1

    asyncio.run(run())


def part_left(verdict: Verdict) -> float:
    """Return which part of its limit is left."""
    assert verdict.limit is not None
    return verdict.remaining / verdict.limit.limit


GONE = "redis://127.0.0.1:1"


@pytest.mark.parametrize(("replicas", "most"), [(1, 100), (4, 25)])
async def test_without_redis_each_replica_admits_its_share(replicas: int, most: int) -> None:
    demand = Demand((Window("minute", "", 100, YEAR),))
    async with replica(GONE, replicas=replicas) as limiter:
        verdicts = await asyncio.gather(*(limiter.take(demand) for _ in range(200)))
    assert admitted(verdicts) == most
    assert not any(verdict.shared for verdict in verdicts)


async def test_without_redis_everything_or_nothing_is_admitted_where_that_is_set() -> None:
    demand = Demand((Window("minute", "", 1, YEAR),))
    async with replica(GONE, without_redis="open") as limiter:
        assert admitted([await limiter.take(demand) for _ in range(20)]) == 20
    async with replica(GONE, without_redis="closed") as limiter:
        with pytest.raises(ServiceError) as failed:
            await limiter.take(demand)
    assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert failed.value.metadata == {"dependency": "redis"}


async def test_equal_windows_of_others_are_others(replicas: tuple[Limiter, Limiter]) -> None:
    told = Counter[str]()
    for who in ("acme", "else") * 3:
        window = Window(f"tenant:{who}", "", 2, YEAR)
        told[who] += (await replicas[0].take(Demand((window,)))).admitted
    assert told == {"acme": 2, "else": 2}
