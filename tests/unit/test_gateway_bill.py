"""The sums of a bill."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import Price, PriceTable
from quintet_gateway.billing.spent import Generation, Spent

PRICES = PriceTable(
    currency="USD",
    prices=(
        Price(
            hop="generator",
            model="big",
            input_per_million=150_000,
            cached_input_per_million=75_000,
            output_per_million=600_000,
        ),
        Price(hop="embedder", embedding_per_million=20_000, compute_per_hour=3_600_000),
        Price(hop="retriever", compute_per_hour=3_600_000),
    ),
)
HIT = cache_pb.CACHE_OUTCOME_HIT
MISS = cache_pb.CACHE_OUTCOME_MISS
SHARED = cache_pb.CACHE_OUTCOME_SHARED


def use(outcome: int, *, lookups: int = 1, hits: int = 0, saved: float = 0) -> cache_pb.CacheUse:
    told = cache_pb.CacheUse(outcome=outcome, lookups=lookups, hits=hits)  # type: ignore[arg-type]
    told.saved.FromNanoseconds(round(saved * 1e9))
    return told


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_bill_has_a_line_a_hop_and_model_and_their_sum() -> None:
    meter = Meter(PRICES)
    meter.called("embedder", "mini", 0.5, Spent(embedding=1_000))
    meter.called("retriever", "", 0.25)
    meter.called("retriever", "", 0.25)
    meter.called("generator", "big", 2.0, Spent(input=1_000, cached_input=500, output=100))
    bill = meter.bill()
    assert bill.currency == "USD"
    # Compute costs a thousand micro-units a second, which are a million nano-units.
    assert [(it.hop, it.model, it.cost_nanos) for it in bill.lines] == [
        ("embedder", "mini", 500_000 + 20_000),
        ("retriever", "", 500_000),
        ("generator", "big", 150_000 + 37_500 + 60_000),
    ]
    assert bill.cost_nanos == sum(it.cost_nanos for it in bill.lines)
    assert bill.lines[1].compute.ToNanoseconds() == 500_000_000
    assert (bill.saved_nanos, bill.estimated) == (0, False)
    assert meter.tokens == 2_600


@pytest.mark.parametrize("outcome", [HIT, SHARED])
def test_what_a_cache_served_costs_nothing_and_is_saved(outcome: int) -> None:
    meter = Meter(PRICES)
    saved = use(outcome, hits=int(outcome == HIT), saved=0.5)
    meter.called("embedder", "mini", 0.001, Spent(embedding=1_000), saved)
    [line] = meter.bill().lines
    assert (line.cost_nanos, line.saved_nanos) == (0, 520_000)
    assert (line.embedding_tokens, line.compute.ToNanoseconds()) == (0, 0)


def test_of_a_batch_tokens_are_shared_out_by_number() -> None:
    meter = Meter(PRICES)
    meter.called(
        "embedder", "mini", 0.0, Spent(embedding=1_001), use(MISS, lookups=4, hits=3, saved=0.0)
    )
    [line] = meter.bill().lines
    assert line.embedding_tokens == 251
    assert (line.cost_nanos, line.saved_nanos, line.estimated) == (5_020, 15_000, True)


@given(
    tokens=st.tuples(*[st.integers(0, 10**7)] * 4),
    lookups=st.integers(1, 300),
    data=st.data(),
)
@settings(deadline=None)
def test_cost_and_saving_are_what_all_would_have_cost(
    tokens: tuple[int, int, int, int], lookups: int, data: Any
) -> None:
    hits = data.draw(st.integers(0, lookups))
    read, cached_read, written, embedded = tokens
    spent = Spent(read, cached_read, written, embedded)
    cached, uncached = Meter(PRICES), Meter(PRICES)
    outcome = HIT if hits == lookups else MISS
    cached.called("generator", "big", 0.0, spent, use(outcome, lookups=lookups, hits=hits))
    uncached.called("generator", "big", 0.0, spent)
    one, other = cached.bill(), uncached.bill()
    # Each of the two is rounded.
    assert abs(one.cost_nanos + one.saved_nanos - other.cost_nanos) <= 1
    assert 0 <= one.cost_nanos <= other.cost_nanos


def test_a_kept_answers_whole_bill_is_saved() -> None:
    made = Meter(PRICES)
    made.called("generator", "big", 2.0, Spent(output=100))
    made.called("retriever", "", 0.1, use=use(HIT, hits=1, saved=0.5))
    served = Meter(PRICES)
    served.called("retriever", "", 0.1)
    served.spared(made.bill())
    bill = served.bill()
    assert bill.cost_nanos == 100_000
    assert {it.hop: it.saved_nanos for it in bill.lines} == {
        "retriever": 500_000,
        "generator": 60_000,
    }
    assert bill.saved_nanos == 560_000


def test_a_hop_without_a_price_costs_nothing_and_says_so() -> None:
    meter = Meter(PRICES)
    before = counted("quintet_cost_unpriced_calls_total", model="small", hop="generator")
    with structlog.testing.capture_logs() as logs:
        meter.called("generator", "small", 2.0, Spent(output=100))
        Meter(PRICES).called("generator", "small", 2.0, Spent(output=100))
    assert [it["event"] for it in logs] == ["tokens have no price and pass every budget"]
    [line] = meter.bill().lines
    assert (line.cost_nanos, line.output_tokens, line.unpriced) == (0, 100, True)
    after = counted("quintet_cost_unpriced_calls_total", model="small", hop="generator")
    assert after == before + 2


def test_costs_and_savings_are_counted_by_model_and_hop() -> None:
    labels = {"model": "big", "hop": "generator"}
    names = ("quintet_cost_micros_total", "quintet_cost_saved_micros_total")
    before = [counted(name, **labels) for name in names]
    meter = Meter(PRICES)
    meter.called("generator", "big", 2.0, Spent(output=1_000))
    meter.called("generator", "big", 0.0, Spent(output=2_000), use(HIT, hits=1))
    after = [counted(name, **labels) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == pytest.approx(
        [600, 1_200]
    )


def test_what_a_part_costs_is_in_the_whole() -> None:
    whole = Meter(PRICES)
    first, second = whole.part(), whole.part()
    first.called("retriever", "", 1.0)
    second.called("retriever", "", 2.0)
    assert first.bill().cost_nanos == 1_000_000
    assert whole.bill().cost_nanos == 3_000_000


REQUEST = generator_pb.GenerateRequest(
    question="x" * 300, passages=[generator_pb.Passage(title="", text="y" * 299)]
)


def text(piece: str) -> generator_pb.GenerateStreamResponse:
    return generator_pb.GenerateStreamResponse(text_delta=generator_pb.TextDelta(text=piece))


def test_a_whole_stream_took_what_the_generator_says() -> None:
    generation = Generation(REQUEST)
    generation.note(text("z" * 300))
    usage = generator_pb.Usage(prompt_tokens=50, completion_tokens=7, cached_prompt_tokens=20)
    completed = generator_pb.Completed(usage=usage)
    generation.note(generator_pb.GenerateStreamResponse(completed=completed))
    assert generation.spent(failed=False) == Spent(input=30, cached_input=20, output=7)


@pytest.mark.parametrize("failed", [True, False])
def test_a_stream_that_ends_early_took_its_prompt_and_what_was_written(failed: bool) -> None:
    generation = Generation(REQUEST)
    generation.note(text("z" * 20))
    generation.note(text("z" * 10))
    assert generation.spent(failed=failed) == Spent(input=201, output=10, estimated=True)


def test_a_stream_that_fails_before_it_begins_took_no_token() -> None:
    assert Generation(REQUEST).spent(failed=True) == Spent()
