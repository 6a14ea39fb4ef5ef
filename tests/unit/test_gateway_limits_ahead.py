"""Requests that are taken a few ahead."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet_gateway.admission.ahead import LEAST_LEFT, MOST, SECONDS, SHARE, Ahead
from quintet_gateway.admission.demand import Demand, Verdict, Window
from quintet_gateway.admission.local import LocalLimits

YEAR = 365 * 86_400.0


class Shared:
    """Limits that several replicas ask, each over a round trip."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trips = 0
        self._limits = LocalLimits(clock=lambda: self.now)

    async def take(self, demand: Demand) -> Verdict:
        self.trips += 1
        await asyncio.sleep(0)
        return self._limits.take(demand)

    def replica(self) -> Ahead:
        return Ahead(self.take, clock=lambda: self.now)


def minute(limit: int) -> Demand:
    return Demand((Window("minute", "", limit, YEAR),))


async def test_most_requests_of_a_busy_caller_need_no_round_trip() -> None:
    shared = Shared()
    ahead = shared.replica()
    for _ in range(1_000):
        assert (await ahead.take(minute(100_000))).admitted
    assert shared.trips <= 1_000 / MOST + 1


@pytest.mark.parametrize("limit", [1, 100, LEAST_LEFT - 1])
async def test_small_limits_are_exact_over_replicas_whatever_they_take_ahead(limit: int) -> None:
    shared = Shared()
    replicas = [shared.replica() for _ in range(3)]
    calls = (replicas[i % 3].take(minute(limit)) for i in range(1_000))
    verdicts = await asyncio.gather(*calls)
    assert sum(it.admitted for it in verdicts) == limit
    assert shared.trips == 1_000


@given(
    limit=st.integers(LEAST_LEFT, 3_000),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    parallel=st.integers(1, 20),
)
@settings(max_examples=30, deadline=None)
def test_never_more_are_admitted_and_hardly_fewer(
    limit: int, order: list[int], parallel: int
) -> None:
    async def run() -> None:
        shared = Shared()
        replicas = [shared.replica() for _ in range(3)]
        admitted, refused = 0, 0
        while refused < 200:
            for number in order:
                calls = (replicas[number].take(minute(limit)) for _ in range(parallel))
                for verdict in await asyncio.gather(*calls):
                    admitted += verdict.admitted
                    refused += not verdict.admitted
        held = min(MOST, limit // SHARE)
        assert limit - held * len(replicas) <= admitted <= limit

    asyncio.run(run())


async def test_what_is_not_used_within_a_second_is_not_used_later() -> None:
    shared = Shared()
    ahead = shared.replica()
    for _ in range(3):
        await ahead.take(minute(100_000))
    assert shared.trips == 2
    shared.now += SECONDS
    await ahead.take(minute(100_000))
    assert shared.trips == 3


async def test_what_is_told_to_be_left_goes_down_by_one_a_request() -> None:
    ahead = Shared().replica()
    left = [(await ahead.take(minute(10_000))).remaining for _ in range(100)]
    assert left == list(range(9_999, 9_899, -1))
