"""The engine: which backend answers, and what is told about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from quintet_generator import wire
from quintet_generator.completion_cache import CompletionCache
from quintet_generator.engine import Engine
from quintet_generator.models import (
    Citation,
    Event,
    Feature,
    Finished,
    FinishReason,
    ModelInfo,
    Passage,
    Query,
    TextDelta,
)
from quintet_generator.prompts import PromptTemplate, Templates
from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.errors import Reason, ServiceError

QUERY = Query("", "Why?", (Passage("", "So."),), "answer", 16)
EVENTS: list[Event] = [
    TextDelta("So"),
    TextDelta("."),
    Citation(0, 0, 3, 0, 3, 1.0),
    Finished(FinishReason.LENGTH, 7, 2),
]


class Scripted:
    """A backend that plays back events; it fails or hangs after them if told to."""

    operation = "chat"
    features: frozenset[Feature] = frozenset({Feature.LOGPROBS})
    worth_keeping = True

    def __init__(self, name: str, *, error: Exception | None = None, hangs: bool = False) -> None:
        self.name = name
        self.closed = False
        self.loaded = False
        self._error = error
        self._hangs = hangs

    async def load(self) -> None:
        self.loaded = True

    async def describe(self) -> ModelInfo:
        return ModelInfo(self.name, "ab" * 32, "scripted", 0, "")

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        try:
            for event in EVENTS[:2] if self._error or self._hangs else EVENTS:
                yield event
            if self._error:
                raise self._error
            if self._hangs:
                await asyncio.Event().wait()
        finally:
            self.closed = True


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(
        "quintet_generator.spans.telemetry.tracer", lambda: provider.get_tracer("test")
    )
    yield exporter
    provider.shutdown()


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    [span] = spans.get_finished_spans()
    return span


def completions() -> CompletionCache:
    settings = CacheSettings(memory_bytes=2**20)
    return CompletionCache(wire.COMPLETIONS, wire.EVENTS, settings, None, schema=wire.SCHEMA)


async def loaded(*backends: Scripted) -> Engine:
    engine = Engine(backends, Templates.packaged(), completions())
    await engine.load(load_all=False)
    return engine


async def test_the_first_backend_answers_when_none_is_named() -> None:
    engine = await loaded(Scripted("one"), Scripted("two"))
    assert [it.name for it in engine.models()] == ["one", "two"]
    assert (await engine.generate(QUERY)).completed.model.name == "one"
    assert (await engine.generate(replace(QUERY, model="two"))).completed.model.name == "two"


async def test_what_a_backend_lacks_is_refused_by_name() -> None:
    engine = await loaded(Scripted("one"))
    await engine.generate(replace(QUERY, logprobs=True))
    with pytest.raises(ServiceError) as caught:
        await engine.generate(replace(QUERY, json_schema="{}", logprobs=True))
    assert caught.value.reason is Reason.UNSUPPORTED_BY_MODEL
    assert caught.value.metadata == {"model": "one", "feature": "json_schema"}


@pytest.mark.parametrize("load_all", [False, True])
async def test_the_default_is_loaded_at_start_and_the_others_if_asked(load_all: bool) -> None:
    first, second = Scripted("one"), Scripted("two")
    engine = Engine([first, second], Templates.packaged(), completions())
    await engine.load(load_all=load_all)
    assert (first.loaded, second.loaded) == (True, load_all)


async def test_a_whole_answer_is_its_stream_joined() -> None:
    generation = await (await loaded(Scripted("one"))).generate(QUERY)
    assert generation.text == "So."
    assert generation.citations == (EVENTS[2],)
    assert generation.completed.finished == EVENTS[3]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (replace(QUERY, model="nope"), Reason.MODEL_NOT_FOUND),
        (replace(QUERY, template="nope"), Reason.TEMPLATE_NOT_FOUND),
    ],
)
async def test_unknown_names_are_refused_before_any_work(
    query: Query, reason: Reason, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(ServiceError) as caught:
        await (await loaded(Scripted("one"))).generate(query)
    assert caught.value.reason is reason
    assert not spans.get_finished_spans()


async def test_a_span_follows_the_conventions_for_generative_ai(
    spans: InMemorySpanExporter,
) -> None:
    await (await loaded(Scripted("one"))).generate(QUERY)
    span = only(spans)
    assert (span.name, span.kind) == ("chat one", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "quintet.scripted"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "one"
    assert attributes["gen_ai.usage.input_tokens"] == 7
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)


async def test_a_consumer_who_leaves_closes_the_backend_and_ends_the_span(
    spans: InMemorySpanExporter,
) -> None:
    backend = Scripted("one", hangs=True)
    async with aclosing((await loaded(backend)).stream(QUERY)) as events:
        await anext(events)
    assert backend.closed
    assert (only(spans).attributes or {})["error.type"] == "CANCELLED"
    assert only(spans).status.status_code is StatusCode.UNSET


async def test_a_cancelled_call_closes_the_backend_and_ends_the_span(
    spans: InMemorySpanExporter,
) -> None:
    backend = Scripted("one", hangs=True)
    task = asyncio.create_task((await loaded(backend)).generate(QUERY))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.closed
    assert (only(spans).attributes or {})["error.type"] == "CANCELLED"


async def test_a_failure_is_on_the_span_without_its_message(spans: InMemorySpanExporter) -> None:
    with pytest.raises(RuntimeError):
        await (await loaded(Scripted("one", error=RuntimeError("secret")))).generate(QUERY)
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "RuntimeError"
    assert "secret" not in str(span.to_json())
