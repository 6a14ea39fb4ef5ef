"""Budgets in a real Valkey: none is passed, whoever asks at once, dies, or forgets."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from redis import Redis
from support.cut_connection import proxy_to

from quintet_gateway.admission.admission import Admission
from quintet_gateway.admission.budget import Budget, BudgetPolicy
from quintet_gateway.admission.demand import Demand, Verdict, Window
from quintet_gateway.admission.limiter import Limiter, open_limiter
from quintet_gateway.admission.policies import Policies
from quintet_gateway.admission.policy import Policy
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.billing import meter as meter_module
from quintet_gateway.billing.bounds import Most
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import Price, PriceTable
from quintet_gateway.billing.spent import Spent
from quintet_gateway.usage.entry import Entry
from quintet_gateway.usage.ledger import Ledger
from quintet_local.ports import free_port
from quintet_local.valkey import Valkey
from quintet_servicekit.cache import CacheSettings, open_remote
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

LIMIT = 10_000
TOMORROW = datetime.now(UTC).date() + timedelta(days=1)
"""A day that does not end while these tests run."""


@dataclass
class Counted:
    """Stands for the usage in the database."""

    nanos: int = 0
    away: bool = False
    asked: int = 0

    async def __call__(self, budgets: Sequence[Budget]) -> list[int]:
        self.asked += 1
        if self.away:
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away")
        return [self.nanos] * len(budgets)


@asynccontextmanager
async def replica(
    url: str, counted: Counted | None = None, **fields: object
) -> AsyncIterator[Limiter]:
    """A gateway's limits. A loaded machine must not look like a Redis that is gone."""
    redis = CacheSettings(redis_url=SecretStr(url), redis_timeout_seconds=2)
    async with AsyncExitStack() as stack:
        remote = await stack.enter_async_context(open_remote(redis))
        limits = LimitSettings.model_validate(fields)
        yield await stack.enter_async_context(open_limiter(limits, remote, counted))


def budgets(tenant: str = "acme", day: int = LIMIT, month: int = 5 * LIMIT) -> tuple[Budget, ...]:
    found = BudgetPolicy(day=1, month=1).on(tenant, TOMORROW)
    return tuple(replace(it, limit=n) for it, n in zip(found, (day, month), strict=True))


def demand(amount: int, lease: float = 30.0, **fields: Any) -> Demand:
    return Demand(
        (),
        budgets=fields.pop("budgets", None) or budgets(),
        amount=amount,
        holder=uuid4().hex,
        lease_seconds=lease,
    )


def spent(url: str, budget: Budget) -> tuple[int, int]:
    with Redis.from_url(url, decode_responses=True) as client:
        [key] = client.keys(f"*{budget.key}")
        book = client.hgetall(key)
    return int(book["spent"]), int(book.get("held", 0))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it comes about in another process
            await asyncio.sleep(0.01)


async def test_two_replicas_at_once_cannot_pass_a_budget(redis_url: str) -> None:
    total = 0
    chance = random.Random(7)
    async with replica(redis_url) as one, replica(redis_url) as other:

        async def call(number: int) -> None:
            nonlocal total
            limiter = (one, other)[number % 2]
            asked = demand(chance.randint(50, 300))
            verdict = await limiter.take(asked)
            if not verdict.admitted:
                return
            await asyncio.sleep(chance.random() / 100)
            cost = chance.randint(0, asked.amount)
            total += cost
            limiter.settle(asked, verdict, 0, cost)

        for _ in range(12):
            await asyncio.gather(*(call(number) for number in range(300)))
            assert total <= LIMIT
    # All is settled: nothing is held, and what is left is less than a call may cost.
    assert spent(redis_url, budgets()[0]) == (total, 0)
    assert spent(redis_url, budgets()[1]) == (total, 0)
    assert LIMIT - 300 < total <= LIMIT


async def test_what_a_dead_replica_reserved_is_free_after_its_lease(redis_url: str) -> None:
    async with replica(redis_url) as dying, replica(redis_url) as living:
        dead = await dying.take(demand(9_000, lease=0.3))
        assert dead.admitted
        refused = await living.take(demand(2_000))
        assert not refused.admitted
        assert refused.wait_seconds == 1.0
        await asyncio.sleep(0.35)
        again = demand(2_000)
        assert (await living.take(again)).states[0].held == 2_000  # type: ignore[index]
        # One that was only slow is charged all the same, and gives nothing back twice.
        dying.settle(demand(9_000), dead, 0, 3_000)
    assert spent(redis_url, budgets()[0]) == (3_000, 2_000)


async def test_when_redis_has_lost_all_what_is_spent_is_what_the_database_counted(
    redis_url: str,
) -> None:
    counted = Counted(7_000)
    async with replica(redis_url, counted) as limiter:
        assert (await limiter.take(demand(3_000))).admitted
        with Redis.from_url(redis_url) as client:
            client.flushall()
        # The reservation is lost with it; what is spent is not.
        assert not (await limiter.take(demand(3_001))).admitted
        verdict = await limiter.take(demand(3_000))
        assert verdict.admitted
        assert verdict.shared
    assert counted.asked == 2


async def test_with_redis_empty_and_the_database_away_a_replica_goes_by_what_it_knows(
    redis_url: str,
) -> None:
    counted = Counted(7_000)
    async with replica(redis_url, counted, replicas=3) as limiter:
        assert (await limiter.take(demand(1))).admitted
        with Redis.from_url(redis_url) as client:
            client.flushall()
        counted.away = True
        assert not (await limiter.take(demand(1_001))).admitted
        verdict = await limiter.take(demand(1_000))
        assert (verdict.admitted, verdict.shared) == (True, False)
    async with replica(redis_url, counted, without_redis="closed") as closed:
        with pytest.raises(ServiceError) as refused:
            await closed.take(demand(1))
        assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_settlement_that_was_lost_is_made_good_by_the_database(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quintet_gateway.admission.limiter.RECONCILE_SECONDS", 0.05)
    counted = Counted()
    async with replica(redis_url, counted) as limiter:
        assert (await limiter.take(demand(100, lease=0.05))).admitted
        counted.nanos = 9_000
        await until(lambda: spent(redis_url, budgets()[0])[0] >= 9_000)
        assert not (await limiter.take(demand(1_001))).admitted
        # Less in the database is only late: nothing is taken back.
        counted.nanos = 10
        asked = counted.asked
        await until(lambda: counted.asked >= asked + 3)
        assert not (await limiter.take(demand(1_001))).admitted


async def test_tokens_and_money_are_taken_together_or_not_at_all(redis_url: str) -> None:
    window = Window("tokens", "tenant tokens", 100, 86_400.0)
    async with replica(redis_url) as limiter:
        poor = replace(demand(LIMIT + 1), windows=(window,), cost=60)
        refused = await limiter.take(poor)
        assert (refused.admitted, refused.limit) == (False, budgets()[0])
        rich = replace(demand(1), windows=(window,), cost=60)
        assert (await limiter.take(rich)).remaining == 40
        busy = await limiter.take(replace(demand(1), windows=(window,), cost=60))
        assert (busy.admitted, busy.limit) == (False, window)
    assert spent(redis_url, budgets()[0]) == (0, 1)


async def test_who_leaves_before_the_verdict_holds_nothing(redis_url: str) -> None:
    async with replica(redis_url) as limiter:
        assert (await limiter.take(demand(1))).admitted
        asking = [asyncio.create_task(limiter.take(demand(1_000))) for _ in range(9)]
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: spent(redis_url, budgets()[0]) == (0, 1))


async def test_a_redis_that_is_killed_between_reserving_and_settling_loses_nothing_spent(
    tmp_path: Path,
) -> None:
    server = Valkey(tmp_path, port=free_port())
    running = await server.start()
    counted = Counted()
    async with replica(server.url, counted) as limiter:
        asked = demand(4_000)
        verdict = await limiter.take(asked)
        assert verdict.admitted
        os.kill(running.pid, signal.SIGKILL)
        await running.wait()
        # The bill is in the database; Redis cannot be told.
        counted.nanos = 4_000
        limiter.settle(asked, verdict, 0, 4_000)
        here = demand(6_000)
        without = await limiter.take(here)
        assert (without.admitted, without.shared) == (True, False)
        assert not (await limiter.take(demand(1))).admitted
        limiter.settle(here, without, 0, 1_000)
        counted.nanos = 5_000
        running = await server.start()
        async with asyncio.timeout(30):
            while True:
                verdict = await limiter.take(demand(5_001))
                assert not verdict.admitted
                if verdict.shared:
                    break
                await asyncio.sleep(0.05)
        back = await limiter.take(demand(5_000))
        assert (back.admitted, back.shared) == (True, True)
    await server.stop(running)


async def test_a_reservation_whose_verdict_was_lost_on_its_way_holds_nothing_beyond_its_lease(
    redis_url: str,
) -> None:
    server = urlsplit(redis_url).netloc.rpartition("@")[2]
    async with proxy_to(server) as proxy, replica(redis_url) as other:
        async with replica(redis_url.replace(server, proxy.address)) as cut_off:
            assert (await cut_off.take(demand(1))).shared
            proxy.hold_answers()
            asked = demand(4_000, lease=3.0)
            verdict = await cut_off.take(asked)
            # It was made there, and nobody knows: here it is decided anew.
            assert (verdict.admitted, verdict.shared) == (True, False)
            assert spent(redis_url, budgets()[0]) == (0, 4_001)
            proxy.cut()
            cut_off.settle(asked, verdict, 0, 1_000)
        async with asyncio.timeout(30):
            while not (await other.take(demand(6_000))).admitted:  # noqa: ASYNC110 - a lease ends
                await asyncio.sleep(0.05)
    assert spent(redis_url, budgets()[0]) == (0, 6_001)


@pytest.mark.parametrize("day", [date(2199, 3, 30), date(2199, 3, 31)])
async def test_what_is_reserved_before_midnight_is_charged_to_its_day_when_settled_after(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, day: date
) -> None:
    days = [day]
    monkeypatch.setattr(meter_module, "today", lambda: days[0])
    policy = BudgetPolicy(day=10, month=100)
    noted: list[Entry] = []
    outbox = SimpleNamespace(put=noted.append)
    per_token = Price(hop="generator", model="m", output_per_million=1_000)

    def new_meter() -> Meter:
        return Meter(PriceTable(currency="USD", prices=(per_token,)))

    def spend(meter: Meter, nanos: int) -> None:
        meter.called("generator", "m", 0.0, Spent(output=nanos))

    async with replica(redis_url, Counted()) as limiter:
        policies = Policies(Policy(budget=policy), None)
        admission = Admission(limiter, policies, Ledger(outbox))
        old = new_meter()
        with acting_as(Identity("acme", "k")):
            async with admission.reserved(0, old, most=Most(6_000, 30)):
                spend(old, 1_000)
                days[0] = day + timedelta(days=1)
                # The new day's budget is whole.
                new = new_meter()
                async with admission.reserved(0, new, most=Most(9_000, 30)):
                    spend(new, 5_000)
                spend(old, 2_000)
            # What comes after its reservation, and another one, are of the day of arrival too.
            spend(old, 500)
            admission.settle(old)
            await _settled(limiter)
            async with admission.reserved(0, old, most=Most(6_500, 30)):
                spend(old, 300)
            await _settled(limiter)
        (before, month), (after, next_month) = (
            policy.on("acme", it) for it in (day, day + timedelta(days=1))
        )
        assert spent(redis_url, before) == (3_800, 0)
        assert spent(redis_url, after) == (5_000, 0)
        if month == next_month:
            assert spent(redis_url, month) == (8_800, 0)
        else:
            assert spent(redis_url, month) == (3_800, 0)
            assert spent(redis_url, next_month) == (5_000, 0)
    by_day = dict.fromkeys((str(day), str(days[0])), 0)
    for each in noted:
        by_day[each.day] += sum(it.cost for it in each.used)
    assert list(by_day.values()) == [3_800, 5_000]


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "settle", "settle", "die", "charge", "forget"]),
        st.integers(0, 1),
        st.integers(0, 2_500),
    ),
    max_size=40,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(steps=steps)
async def test_whatever_happens_what_was_reserved_and_settled_is_within_the_budget(
    redis_url: str, steps: list[tuple[str, int, int]]
) -> None:
    tenant = uuid4().hex
    mine = budgets(tenant)
    counted = Counted()
    charged = dead = 0
    async with replica(redis_url, counted) as one, replica(redis_url, counted) as other:
        under_way: list[tuple[Limiter, Demand, Verdict]] = []
        for step, number, amount in steps:
            limiter = (one, other)[number]
            if step == "reserve":
                asked = demand(amount, budgets=mine)
                verdict = await limiter.take(asked)
                held = dead + sum(it.amount for _, it, _ in under_way)
                assert verdict.admitted == (counted.nanos + held + amount <= LIMIT)
                if verdict.admitted:
                    under_way.append((limiter, asked, verdict))
            elif step == "settle" and under_way:
                limiter, asked, verdict = under_way.pop(amount % len(under_way))
                cost = min(amount, asked.amount)
                counted.nanos += cost
                limiter.settle(asked, verdict, 0, cost)
                await _settled(limiter)
            elif step == "die" and under_way:
                # Until its lease ends, nobody knows what it has cost.
                dead += under_way.pop(amount % len(under_way))[1].amount
            elif step == "charge":
                counted.nanos += amount // 100
                charged += amount // 100
                limiter.charge(mine, amount // 100)
                await _settled(limiter)
            elif step == "forget" and not under_way and not dead:
                with Redis.from_url(redis_url) as client:
                    client.flushall()
            assert counted.nanos - charged <= LIMIT
        verdict = await one.take(demand(0, budgets=mine))
        if verdict.states:
            assert verdict.states[0].spent == counted.nanos


async def _settled(limiter: Limiter) -> None:
    if limiter._tasks:
        await asyncio.wait(set(limiter._tasks))
