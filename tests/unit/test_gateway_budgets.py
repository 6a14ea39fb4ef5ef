"""Budgets as one replica keeps them, what they reserve, and what callers see of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from quintet_gateway.admission.admission import BUDGET_KEY, Admission
from quintet_gateway.admission.budget import Budget, BudgetPolicy
from quintet_gateway.admission.limiter import Limiter
from quintet_gateway.admission.local_budgets import LocalBudgets
from quintet_gateway.admission.policies import Policies
from quintet_gateway.admission.policy import Limits, Policy, Rate, TenantPolicy
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.billing.bounds import RESERVED_SECONDS, Most, most
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import Price, PriceTable
from quintet_gateway.billing.spent import Spent
from quintet_gateway.usage.ledger import Ledger
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

ACME, OTHER = Identity("acme"), Identity("other")
NANOS = 10_000
"""What a token of the model "m" costs."""
PRICES = PriceTable(
    currency="USD",
    prices=(
        Price(hop="generator", model="m", output_per_million=NANOS * 1_000),
        Price(hop="generator", model="dear", input_per_million=2_000_000),
        Price(hop="embedder", embedding_per_million=1_000_000, compute_per_hour=3_600),
    ),
)


def guard(policy: Policy, spent: Sequence[int] = (), replicas: int = 1) -> Admission:
    async def spending(budgets: Sequence[Budget]) -> list[int]:
        return list(spent) or [0] * len(budgets)

    limiter = Limiter(LimitSettings(replicas=replicas), None, spending)
    return Admission(limiter, Policies(policy, None), Ledger(None))


def of(micros: int, **fields: object) -> Policy:
    return Policy(budget=BudgetPolicy.model_validate({"day": micros, **fields}))


def spend(meter: Meter, tokens: int) -> None:
    meter.called("generator", "m", 0.0, Spent(output=tokens))


def test_periods_are_of_utc_and_end_when_the_next_begins() -> None:
    day, month = BudgetPolicy(day=1, month=2).on("acme", date(2028, 2, 29))
    assert (day.first, day.end, day.limit) == (date(2028, 2, 29), date(2028, 3, 1), 1_000)
    assert (month.first, month.end, month.limit) == (date(2028, 2, 1), date(2028, 3, 1), 2_000)
    assert (
        len({day.key, month.key, *(it.key for it in BudgetPolicy(day=1).on("b", day.first))}) == 3
    )
    today = datetime.now(UTC).date()
    assert 1 <= BudgetPolicy(day=1).on("acme", today)[0].ends_in <= 86_400
    assert BudgetPolicy(day=1).on("acme", today - timedelta(days=2))[0].ends_in == 1.0


steps = st.lists(
    st.tuples(st.sampled_from(["take", "settle"]), st.integers(0, 60), st.integers(0, 60)),
    max_size=80,
)


@given(limits=st.tuples(st.integers(1, 100), st.integers(1, 100)), steps=steps)
def test_what_is_spent_and_held_is_never_more_than_the_budget(
    limits: tuple[int, int], steps: list[tuple[str, int, int]]
) -> None:
    budgets = [
        Budget("acme", "day", date(2026, 11, 1), date(2026, 11, 2), limit, 0.8) for limit in limits
    ]
    budgets[1] = Budget("acme", "month", *(budgets[1].first, budgets[1].end), limits[1], 0.8)
    kept, held, spent = LocalBudgets(1.0), list[int](), 0
    for budget in budgets:
        kept.begin(budget, 0)
    for step, amount, share in steps:
        if step == "take":
            refused, states = kept.hold(budgets, amount)
            fits = [spent + sum(held) + amount <= limit for limit in limits]
            assert (refused == 0) == all(fits)
            if not refused:
                held.append(amount)
            assert all((it.spent, it.held) == (spent, sum(held)) for it in states)
        elif held:
            reserved = held.pop(share % len(held))
            cost = min(amount, reserved)
            kept.settle(budgets, reserved, cost)
            spent += cost
        assert spent + sum(held) <= min(limits) or not spent + sum(held)


async def test_a_call_is_refused_that_may_cost_more_than_is_left() -> None:
    admission, meter = guard(of(100)), Meter(PRICES)
    async with admission.reserved(0, meter, most=Most(90_000, 1)):
        with pytest.raises(ServiceError) as held:
            async with admission.reserved(0, Meter(PRICES), most=Most(20_000, 1)):
                pass
        spend(meter, 5)
    assert held.value.reason is Reason.BUDGET_EXHAUSTED
    # What holds the rest will be settled soon.
    assert held.value.retry_after == 1.0
    async with admission.reserved(0, Meter(PRICES), most=Most(50_000, 1)):
        pass
    with pytest.raises(ServiceError) as spent:
        async with admission.reserved(0, Meter(PRICES), most=Most(50_001, 1)):
            pass
    assert spent.value.metadata == {
        "budget": "tenant day",
        "limit_nanos": "100000",
        "remaining_nanos": "50000",
        "needed_nanos": "50001",
    }
    assert spent.value.retry_after is not None
    assert 1 <= spent.value.retry_after <= 86_400


async def test_a_reservation_is_given_back_when_its_work_fails_or_is_cancelled() -> None:
    admission, meter = guard(of(100)), Meter(PRICES)
    with pytest.raises(ValueError, match="broken"):
        async with admission.reserved(0, meter, most=Most(100_000, 1)):
            spend(meter, 4)
            raise ValueError("broken")
    async with admission.reserved(0, Meter(PRICES), most=Most(60_000, 1)):
        pass


async def test_what_was_spent_before_and_beside_a_reservation_counts_too() -> None:
    admission, meter = guard(of(100)), Meter(PRICES)
    spend(meter, 3)
    async with admission.reserved(0, meter, most=Most(70_000, 1)):
        pass
    spend(meter, 2)
    admission.settle(meter)
    admission.settle(meter)
    async with admission.reserved(0, Meter(PRICES), most=Most(50_000, 1)):
        pass
    with pytest.raises(ServiceError):
        async with admission.reserved(0, Meter(PRICES), most=Most(50_001, 1)):
            pass


async def test_what_tokens_refuse_holds_nothing_of_the_budget() -> None:
    tokens = Limits(tokens=(Rate(limit=100, seconds=3_600),))
    admission = guard(Policy(tenant=tokens, budget=BudgetPolicy(day=100)))
    async with admission.reserved(100, Meter(PRICES), most=Most(50_000, 1)):
        with pytest.raises(ServiceError) as refused:
            async with admission.reserved(1, Meter(PRICES), most=Most(1, 1)):
                pass
        assert refused.value.reason is Reason.RATE_LIMITED
        async with admission.reserved(0, Meter(PRICES), most=Most(50_000, 1)):
            pass


async def test_a_replica_alone_has_its_share_of_what_the_database_says_is_left() -> None:
    admission = guard(of(100), spent=[60_000], replicas=4)
    with pytest.raises(ServiceError):
        async with admission.reserved(0, Meter(PRICES), most=Most(10_001, 1)):
            pass
    async with admission.reserved(0, Meter(PRICES), most=Most(10_000, 1)):
        pass


async def test_a_tenants_own_budget_stands_instead_of_everybodys() -> None:
    own = TenantPolicy(budget=BudgetPolicy(month=5))
    admission = guard(Policy(budget=BudgetPolicy(day=100), tenants={"other": own}))
    with acting_as(OTHER), pytest.raises(ServiceError) as refused:
        async with admission.reserved(0, Meter(PRICES), most=Most(6_000, 1)):
            pass
    assert refused.value.metadata["budget"] == "tenant month"
    with acting_as(ACME):
        async with admission.reserved(0, Meter(PRICES), most=Most(6_000, 1)):
            pass


async def test_callers_are_warned_from_the_share_on_that_the_policy_says() -> None:
    admission = guard(of(100, warn_at=0.5))
    told = []
    for _ in range(3):
        meter = Meter(PRICES)
        async with admission.reserved(0, meter, most=Most(30_000, 1)):
            spend(meter, 3)
        told.append(dict(meter.told))
    assert told[:2] == [{}, {}]
    assert told[2] == {
        BUDGET_KEY: "tenant day",
        "quintet-budget-limit-nanos": "100000",
        "quintet-budget-remaining-nanos": "40000",
    }


async def test_beyond_the_budget_is_served_cheaply_where_the_policy_and_the_call_want_it() -> None:
    for then, cheaply, served in (("cheap", True, True), ("cheap", False, False),
                                  ("refuse", True, False)):  # fmt: skip
        admission, meter = guard(of(100, then=then)), Meter(PRICES)
        try:
            async with admission.reserved(
                0, meter, most=Most(200_000, 1), or_cheaply=cheaply
            ) as refused:
                assert served
                assert refused is not None
                spend(meter, 20)
        except ServiceError as error:
            assert error.reason is Reason.BUDGET_EXHAUSTED
            assert not served
            continue
        # It was charged all the same.
        with pytest.raises(ServiceError):
            async with admission.reserved(0, Meter(PRICES), most=Most(1, 1)):
                pass


day = date(2026, 11, 1)
tokens = st.integers(0, 10_000)


@given(read=tokens, written=tokens, embedded=tokens, seconds=st.floats(0, RESERVED_SECONDS))
def test_no_bill_is_above_what_was_reserved_for_it(
    read: int, written: int, embedded: int, seconds: float
) -> None:
    bound = most(
        PRICES,
        day,
        seconds=seconds,
        embedded=embedded,
        models=["m", "dear", "none"],
        read=read,
        written=written,
    )
    for model in ("m", "dear", "none"):
        meter = Meter(PRICES)
        meter.called("embedder", "e", seconds / 2, Spent(embedding=embedded))
        cached = read // 3
        spent = Spent(input=read - cached, cached_input=cached, output=written)
        meter.called("generator", model, seconds / 2, spent)
        assert meter.bill().cost_nanos <= bound.nanos + 1


def test_calls_that_meet_a_budget_are_counted_from_0_on_so_that_the_first_is_an_increase() -> None:
    budgets = {
        (it.labels["period"], it.labels["outcome"])
        for metric in REGISTRY.collect()
        for it in metric.samples
        if it.name == "quintet_budget_calls_total"
    }
    assert budgets == {
        (period, outcome) for period in ("day", "month") for outcome in ("warned", "exhausted")
    }
