"""The adaptive limit on a server in simulated time: two cores, 25 ms of work a call."""

from __future__ import annotations

import math
import random

import pytest

from bench.simulated_server import Arrival, Outcome, poisson, serve
from quintet_servicekit.limiter import SAMPLES, AdaptiveLimit

CAPACITY = 76.0
"""Calls a second that the server can do."""
DEADLINE = 0.8


def computed(chance: random.Random) -> float:
    return chance.lognormvariate(math.log(0.025), 0.3)


def kept(_: random.Random) -> float:
    return 0.001


def from_a_model(chance: random.Random) -> float:
    return chance.uniform(1.0, 2.0)


def a_limit() -> AdaptiveLimit:
    return AdaptiveLimit(least=16, most=512)


def offered(load: float, since: float = 0.0, until: float = 30.0, seed: int = 1) -> list[Arrival]:
    return poisson(load * CAPACITY, since, until, work=computed, deadline=DEADLINE, seed=seed)


def p99(outcome: Outcome, since: float) -> float:
    waits = sorted(wait for at, wait in outcome.good if at >= since)
    return waits[int(0.99 * len(waits))]


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5])
def test_nothing_is_refused_at_low_load(load: float) -> None:
    outcome = serve(offered(load), a_limit())
    assert not outcome.refused
    assert not outcome.late


@pytest.mark.parametrize(("load", "share"), [(1.0, 0.9), (2.0, 0.95), (3.0, 0.9), (10.0, 0.8)])
def test_goodput_stays_near_its_peak_in_overload(load: float, share: float) -> None:
    outcome = serve(offered(load), a_limit())
    assert outcome.goodput(5, 30) >= share * CAPACITY
    assert p99(outcome, since=5) < 0.95
    admitted = sum(at >= 5 for at, _ in outcome.good) + sum(at >= 5 for at in outcome.late)
    assert sum(at >= 5 for at in outcome.late) < 0.02 * admitted


def test_without_a_limit_there_would_be_no_goodput() -> None:
    outcome = serve(offered(3.0), AdaptiveLimit(least=10**6, most=10**6))
    assert outcome.goodput(5, 30) < 0.1 * CAPACITY


def test_it_adapts_to_overload_within_seconds() -> None:
    outcome = serve(offered(3.0, 0, 6), a_limit())
    assert outcome.goodput(2, 6) >= 0.85 * CAPACITY


def test_nothing_is_refused_any_more_once_overload_has_ended() -> None:
    outcome = serve([*offered(10.0, 0, 10), *offered(0.5, 10, 20, seed=2)], a_limit())
    assert not [at for at in outcome.refused if at > 10.5]
    assert not [at for at in outcome.late if at > 10.5]


def test_a_burst_is_taken_in_when_overload_is_past() -> None:
    burst = [Arrival(30 + number / 1e4, 0.025, 30.0) for number in range(100)]
    calm = offered(0.2, 10, 30, seed=2)
    outcome = serve([*offered(3.0, 0, 10), *calm, *burst], a_limit())
    assert not [at for at in outcome.refused if at >= 30]


def test_a_models_answers_after_a_run_of_hits_do_not_lower_the_limit() -> None:
    limit = a_limit()
    hits = poisson(300, 0, 20, work=kept, deadline=20.0)
    model = poisson(0.8, 20, 80, work=from_a_model, deadline=20.0, seed=2)
    outcome = serve([*hits, *model], limit)
    assert not outcome.refused
    assert limit.limit == 512


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_hits_and_a_models_answers_side_by_side_are_all_admitted(load: float) -> None:
    def either(chance: random.Random) -> float:
        return kept(chance) if chance.random() < 0.8 else from_a_model(chance)

    rate = load * 2 / (0.2 * 1.5)
    outcome = serve(poisson(rate, 0, 300, work=either, deadline=20.0), a_limit())
    assert len(outcome.refused) < 0.01 * len(outcome.good)


def test_callers_with_little_time_are_served_beside_patient_ones() -> None:
    hurried = poisson(1.5 * CAPACITY, 0, 30, work=computed, deadline=DEADLINE)
    patient = poisson(1.5 * CAPACITY, 0, 30, work=computed, deadline=30.0, seed=2)
    outcome = serve([*hurried, *patient], a_limit())
    assert outcome.goodput(5, 30) >= 0.9 * CAPACITY
    assert len([at for at in outcome.late if at >= 5]) < 0.02 * len(outcome.good)


def test_a_few_callers_with_hopeless_deadlines_cost_the_others_nothing() -> None:
    hopeless = poisson(0.02 * CAPACITY, 0, 30, work=computed, deadline=0.02, seed=2)
    outcome = serve([*offered(0.5), *hopeless], a_limit())
    assert not outcome.refused


def test_it_never_leaves_its_bounds() -> None:
    limit = AdaptiveLimit(least=3, most=20)
    for number in range(200):
        limit.sample(began_at=number, now=number, wait=2.0, beside=1)
    assert limit.limit == 3
    for number in range(200, 1_000):
        limit.sample(began_at=number, now=number, wait=0.1, beside=1)
    assert limit.limit == 20


def test_one_slow_call_in_ten_is_not_overload() -> None:
    limit = a_limit()
    for number in range(10 * SAMPLES):
        late = number % 10 == 0
        limit.sample(began_at=number, now=number, wait=2.0 if late else 0.1, beside=40)
    assert limit.limit == 512


def test_calls_from_before_a_decrease_do_not_cause_the_next() -> None:
    limit = AdaptiveLimit(least=1, most=512)
    for _ in range(SAMPLES):
        limit.sample(began_at=1.0, now=2.0, wait=2.0, beside=64)
    assert limit.limit == 32
    for _ in range(5 * SAMPLES):
        limit.sample(began_at=1.9, now=3.0, wait=2.0, beside=64)
    assert limit.limit == 32


def test_it_counts_the_calls_under_way() -> None:
    limit = AdaptiveLimit(least=1, most=2)
    assert [limit.begin(), limit.begin()] == [1, 2]
    assert limit.is_reached
    limit.end()
    assert not limit.is_reached
