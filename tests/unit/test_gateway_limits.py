"""The limits as one replica keeps them, and what calls see of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bucket_model import Bucket

from quintet_gateway.admission.admission import Admission
from quintet_gateway.admission.demand import Demand, Places, Window
from quintet_gateway.admission.limiter import Limiter
from quintet_gateway.admission.local import LocalLimits
from quintet_gateway.admission.policies import Policies
from quintet_gateway.admission.policy import Limits, Policy, Rate, TenantPolicy
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.spent import Spent
from quintet_gateway.usage.ledger import Ledger
from quintet_gateway.yaml_file import FileError
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

ACME = Identity("acme", "one")
SERVICE = "quintet.gateway.v1.GatewayService"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


limits = st.integers(1, 50)
periods = st.integers(1, 60)
steps = st.lists(st.tuples(st.integers(0, 4_000), st.integers(-20, 60), st.booleans()), max_size=60)
"""Milliseconds that pass, a cost, and whether it is taken by force."""


@given(shapes=st.lists(st.tuples(limits, periods), min_size=1, max_size=3), steps=steps)
@settings(deadline=None)
def test_buckets_admit_what_exact_ones_admit_all_of_it_or_nothing(
    shapes: list[tuple[int, int]], steps: list[tuple[int, int, bool]]
) -> None:
    clock, exact = Clock(), [Bucket(*shape) for shape in shapes]
    kept = LocalLimits(clock=clock)
    windows = tuple(Window(str(i), "", *shape) for i, shape in enumerate(shapes))
    now = Fraction(0)
    for milliseconds, cost, force in steps:
        now += Fraction(milliseconds, 1_000)
        clock.now = float(now)
        for bucket in exact:
            bucket.flow(now)
        cost = cost if force else abs(cost) + 1
        verdict = kept.take(Demand(windows, cost, force=force))
        if any(0 < abs(min(cost, it.limit) - it.there) < Fraction(1, 10**5) for it in exact):
            return  # so near that rounding may decide
        assert verdict.admitted == (force or all(it.has(cost) for it in exact))
        if verdict.admitted:
            for bucket in exact:
                bucket.give(cost, force=force)


@given(shape=st.tuples(limits, periods), gaps=st.lists(st.integers(0, 3_000), max_size=80))
@settings(deadline=None)
def test_in_no_interval_more_is_admitted_than_the_limit_and_what_flowed_in(
    shape: tuple[int, int], gaps: list[int]
) -> None:
    clock, (limit, seconds) = Clock(), shape
    kept, admitted = LocalLimits(clock=clock), []
    for gap in gaps:
        clock.now += gap / 1_000
        if kept.take(Demand((Window("w", "", limit, seconds),))).admitted:
            admitted.append(clock.now)
    for first, begin in enumerate(admitted):
        for number, end in enumerate(admitted[first:], start=1):
            assert number <= limit + (end - begin) * limit / seconds + 1e-6


def test_who_is_refused_is_admitted_when_told_and_not_before() -> None:
    clock = Clock()
    kept, demand = LocalLimits(clock=clock), Demand((Window("w", "", 3, 60),))
    assert [kept.take(demand).remaining for _ in range(3)] == [2, 1, 0]
    refused = kept.take(demand)
    assert (refused.admitted, refused.remaining) == (False, 0)
    assert (refused.wait_seconds, refused.reset_seconds) == pytest.approx((20, 60))
    clock.now += refused.wait_seconds - 0.01
    assert not kept.take(demand).admitted
    clock.now += 0.01
    assert kept.take(demand).admitted


def test_the_tightest_limit_is_told_of_and_the_longest_wait() -> None:
    kept = LocalLimits(clock=Clock())
    second, minute = Window("s", "second", 2, 1), Window("m", "minute", 5, 60)
    demand = Demand((second, minute))
    assert kept.take(demand).limit == second
    assert kept.take(Demand((minute,), 3)).limit == minute
    assert kept.take(demand).remaining == 0
    assert kept.take(demand).limit == minute


def test_a_share_of_a_limit_is_at_least_one() -> None:
    kept = LocalLimits(share=1 / 4, clock=Clock())
    many, few = Window("many", "", 100, 60), Window("few", "", 3, 60)
    assert sum(kept.take(Demand((many,))).admitted for _ in range(50)) == 25
    assert sum(kept.take(Demand((few,))).admitted for _ in range(50)) == 1


def test_a_place_is_free_again_when_its_holder_has_left() -> None:
    kept, places = LocalLimits(), (Places("p", "streams", 2),)
    assert kept.take(Demand((), places=places, holder="a")).admitted
    assert kept.take(Demand((), places=places, holder="b")).admitted
    refused = kept.take(Demand((), places=places, holder="c"))
    assert (refused.admitted, refused.limit) == (False, places[0])
    kept.release(places, "c")
    assert not kept.take(Demand((), places=places, holder="c")).admitted
    kept.release(places, "a")
    assert kept.take(Demand((), places=places, holder="c")).admitted


POLICY = Policy(
    everybody=Limits(requests=(Rate(limit=100, seconds=1),)),
    tenant=Limits(tokens=(Rate(limit=1_000, seconds=60),), streams=5),
    key=Limits(requests=(Rate(limit=10, seconds=60),)),
    tenants={"acme": TenantPolicy(key=Limits(requests=(Rate(limit=2, seconds=60),)))},
)


def test_a_tenants_own_limits_go_before_those_of_every_tenant() -> None:
    own, other = POLICY.of(ACME), POLICY.of(Identity("else", "one"))
    assert [(it.name, it.limit) for it in own.requests] == [
        ("everybody requests/1s", 100),
        ("key requests/60s", 2),
    ]
    assert [it.limit for it in other.requests] == [100, 10]
    # What it has not of its own is every tenant's.
    assert [it.limit for it in own.tokens] == [it.limit for it in other.tokens] == [1_000]
    assert own.requests[0].key == other.requests[0].key
    assert own.tokens[0].key != other.tokens[0].key
    assert own.requests[1].key != POLICY.of(Identity("acme", "two")).requests[1].key


FILE = """
everybody:
  requests: [{limit: 1000, seconds: 1}]
tenants:
  acme:
    tenant: {tokens: [{limit: 500, seconds: 60}], streams: 3}
"""


def test_a_changed_file_holds_and_one_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(FILE, encoding="utf-8")
    policies = Policies(Policy(), file)
    assert policies.of(ACME).tokens[0].limit == 500
    assert policies.of(ACME).streams[0].limit == 3
    file.write_text(FILE.replace("500", "5000"), encoding="utf-8")
    policies.look()
    assert policies.of(ACME).tokens[0].limit == 5_000
    file.write_text("everybody: nothing", encoding="utf-8")
    policies.look()
    assert policies.of(ACME).tokens[0].limit == 5_000
    file.unlink()
    policies.look()
    assert policies.of(ACME).tokens[0].limit == 5_000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("keys: {}", "keys: Extra inputs"),
        ("tenant: {requests: [{limit: 0, seconds: 1}]}", "tenant.requests.0.limit"),
        ("key: {tokens: [{limit: 1, seconds: 9}, {limit: 2, seconds: 9}]}", "the same seconds"),
        ("tenants: {Acme: {budget: {day: 1}}}", "no tenant can have this name"),
        ("key: {streams: 1}\nkey: {}", "'key' stands there twice"),
    ],
)
def test_a_bad_file_is_refused_with_where_and_why(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=r"limits\.yaml") as refused:
        Policies(Policy(), file)
    assert fault in str(refused.value)


class Call:
    """A call's trailers."""

    def __init__(self) -> None:
        self.trailers: dict[str, Any] = {}

    def trailing_metadata(self) -> tuple[Any, ...]:
        return tuple(self.trailers.items())

    def set_trailing_metadata(self, trailers: tuple[Any, ...]) -> None:
        self.trailers = dict(trailers)


def admission(policy: Policy) -> Admission:
    limiter = Limiter(LimitSettings(), None)
    policies = Policies(policy, None)
    return Admission(
        limiter, policies, Ledger(None), services=(SERVICE,), free=frozenset({"GetStatus"})
    )


async def _echo(request: Any, _: Any) -> Any:
    return request


async def _endless(_: Any, __: Any) -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


async def test_a_refused_call_is_told_which_limit_when_to_come_back_and_what_is_left() -> None:
    ask = admission(POLICY).around(f"{SERVICE}/Ask", _echo, streams=False)
    with acting_as(ACME):
        for left in ("1", "0"):
            admitted = Call()
            assert await ask("why", admitted) == "why"
            assert admitted.trailers["quintet-limit"] == "key requests/60s"
            assert admitted.trailers["quintet-limit-remaining"] == left
        refused = Call()
        with pytest.raises(ServiceError) as failed:
            await ask("why", refused)
    error = failed.value
    assert error.reason is Reason.RATE_LIMITED
    assert error.metadata["limit"] == "key requests/60s"
    assert error.retry_after == pytest.approx(30, abs=0.5)
    assert refused.trailers["quintet-limit-remaining"] == error.metadata["remaining"] == "0"
    assert int(refused.trailers["quintet-limit-reset-ms"]) == pytest.approx(60_000, abs=500)
    with acting_as(Identity("acme", "two")):
        assert await ask("why", Call()) == "why"


async def test_how_things_are_is_told_to_whom_has_nothing_left() -> None:
    guard = admission(POLICY)
    for method in (f"{SERVICE}/GetStatus", "quintet.status.v1.StatusService/ListBreakers"):
        assert guard.around(method, _echo, streams=False) is _echo


async def test_a_stream_holds_its_place_until_it_ends_whatever_way() -> None:
    policy = Policy(tenant=Limits(streams=1))
    stream = admission(policy).around(f"{SERVICE}/AskStream", _endless, streams=True)

    def opened() -> AsyncGenerator[int]:
        generator: AsyncGenerator[int] = stream("why", Call())
        return generator

    async with aclosing(opened()) as first:
        assert await anext(first) == 1
        async with aclosing(opened()) as second:
            with pytest.raises(ServiceError) as failed:
                await anext(second)
        assert failed.value.metadata["limit"] == "tenant streams"
    async with aclosing(opened()) as third:
        assert await anext(third) == 1


TOKENS = Policy(tenant=Limits(tokens=(Rate(limit=1_000, seconds=3_600),)))


def spend(meter: Meter, tokens: int) -> None:
    meter.called("generator", "big", 0.0, Spent(output=tokens))


async def test_tokens_are_reserved_before_and_settled_after() -> None:
    guard = admission(TOKENS)
    meter = Meter()
    async with guard.reserved(900, meter):
        spend(meter, 300)
        with pytest.raises(ServiceError) as failed:
            async with guard.reserved(200, Meter()):
                pass
    assert failed.value.metadata["limit"] == "tenant tokens/3600s"
    # 600 of the 900 were given back.
    async with guard.reserved(700, Meter()):
        pass


async def test_what_is_spent_beyond_a_reservation_is_owed() -> None:
    guard, meter = admission(TOKENS), Meter()
    async with guard.reserved(10, meter):
        spend(meter, 1_500)
    with pytest.raises(ServiceError) as failed:
        async with guard.reserved(1, Meter()):
            pass
    # Until the debt of 500 is paid, and one more is there.
    assert failed.value.retry_after == pytest.approx(501 * 3.6, abs=5)


async def test_a_reservation_is_settled_when_its_work_fails_or_is_cancelled() -> None:
    guard, meter = admission(TOKENS), Meter()

    async def work(begun: asyncio.Event) -> None:
        async with guard.reserved(1_000, meter):
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.create_task(work(begun))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    with pytest.raises(ZeroDivisionError):
        async with guard.reserved(1_000, meter):
            raise ZeroDivisionError
    async with guard.reserved(1_000, meter):
        pass


async def test_more_than_a_whole_window_is_taken_as_the_whole_of_it() -> None:
    guard = admission(TOKENS)
    async with guard.reserved(5_000, Meter()):
        pass
    async with guard.reserved(5_000, Meter()):
        pass


async def test_who_has_patience_waits_for_tokens() -> None:
    policy = Policy(tenant=Limits(tokens=(Rate(limit=1_000, seconds=1),)))
    guard, meter = admission(policy), Meter()
    async with guard.reserved(1_000, meter):
        spend(meter, 1_000)
    with pytest.raises(ServiceError):
        async with guard.reserved(500, meter, patience_seconds=0.1):
            pass
    async with guard.reserved(500, meter, patience_seconds=60):
        pass
