"""A batch's span and its links, without a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import StatusCode

from quintet_embedder.batch_spans import MOST_LINKS
from quintet_embedder.models import Purpose, TextStates, TokenIds, Vectors
from quintet_embedder.pool import Pool
from quintet_embedder.scheduler import Scheduler
from quintet_servicekit import telemetry
from quintet_servicekit.spans import working


class UnlessUnwanted(Sampler):
    """Records every trace but those whose first span says that it is unwanted."""

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *rest: Any, **more: Any
    ) -> SamplingResult:
        dropped = name.startswith("unwanted")
        given = more.get("attributes", rest[1] if len(rest) > 1 else None)
        return SamplingResult(Decision.DROP if dropped else Decision.RECORD_AND_SAMPLE, given)

    def get_description(self) -> str:
        return "all but the unwanted"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=UnlessUnwanted())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


class GatedLane:
    """Computes when it is let; before that callers gather in the line."""

    name = "gated"
    purposes: tuple[Purpose, ...] = (Purpose.QUERY,)

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.began = threading.Event()
        self._error = error

    def open(self) -> None:
        pass

    def encode(self, ids: Sequence[TokenIds]) -> Vectors:
        self.began.set()
        self.gate.wait(10)
        if self._error is not None and len(ids) > 1:
            raise self._error
        return np.ones((len(ids), 1), dtype=np.float32)

    def encode_states(self, ids: Sequence[TokenIds]) -> list[TextStates]:
        raise AssertionError("no text is reranked here")


async def computed(lane: GatedLane, *callers: str) -> None:
    """Compute a text for a first caller alone, and one for each of `callers` together."""
    scheduler = Scheduler(batch_tokens=100_000, max_texts=1_000)
    pool = Pool("model", lambda: [lane], scheduler)
    lane.gate.set()
    await pool.open([[1, 2]])
    lane.gate.clear()
    lane.began.clear()

    async def call(name: str) -> None:
        with working(name, {}):
            await pool.compute([[1, 2, 3]], Purpose.QUERY)

    first = asyncio.create_task(call("unwanted first"))
    await asyncio.to_thread(lane.began.wait, 10)
    others = [asyncio.create_task(call(name)) for name in callers]
    while scheduler.waiting_texts < len(callers):  # noqa: ASYNC110 - it is said by nothing else
        await asyncio.sleep(0)
    lane.gate.set()
    await asyncio.gather(first, *others, return_exceptions=True)
    await pool.close()


def batches(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [it for it in spans.get_finished_spans() if it.name == "batch model"]


async def test_a_batch_links_to_each_caller_who_is_recorded_and_they_to_it(
    spans: InMemorySpanExporter,
) -> None:
    await computed(GatedLane(), "unwanted one", "one", "two", "three")
    callers = {it.name: it for it in spans.get_finished_spans() if it.name != "batch model"}
    (batch,) = batches(spans)
    assert dict(batch.attributes or {}) == {
        "quintet.batch.texts": 4,
        "quintet.batch.tokens": 12,
        "quintet.batch.callers": 4,
    }
    recorded = [callers[name].context for name in ("one", "two", "three")]
    assert [link.context for link in batch.links] == recorded
    # It is in the first one's trace; the others lead to it.
    assert batch.parent is not None and batch.parent.span_id == recorded[0].span_id
    assert [link.context for link in callers["three"].links] == [batch.context]
    for caller in callers.values():
        waited = (caller.attributes or {})["quintet.queue.wait"]
        assert isinstance(waited, float) and waited >= 0


async def test_a_batch_of_callers_who_are_not_recorded_has_no_span(
    spans: InMemorySpanExporter,
) -> None:
    await computed(GatedLane(), "unwanted one", "unwanted two")
    assert spans.get_finished_spans() == ()


async def test_the_links_of_a_batch_are_bounded(spans: InMemorySpanExporter) -> None:
    count = MOST_LINKS + 8
    await computed(GatedLane(), *(f"caller {number}" for number in range(count)))
    (batch,) = batches(spans)
    assert len(batch.links) == MOST_LINKS
    assert (batch.attributes or {})["quintet.batch.callers"] == count


async def test_a_batch_that_fails_says_so_without_the_message(spans: InMemorySpanExporter) -> None:
    await computed(GatedLane(RuntimeError("secret text")), "one", "two")
    (batch,) = batches(spans)
    assert batch.status.status_code is StatusCode.ERROR
    assert (batch.attributes or {})["error.type"] == "RuntimeError"
    assert "secret" not in str([it.to_json() for it in spans.get_finished_spans()])
