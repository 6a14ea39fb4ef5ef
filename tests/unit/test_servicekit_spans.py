"""What spans tell of servers, failures and round trips to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode
from redis.exceptions import ResponseError

from quintet_servicekit import attributes, telemetry
from quintet_servicekit.cache.redis_spans import RedisSpans, note_replies
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.spans import outside_calls, server_attributes, working

REDIS = RedisSpans({"host": "cache", "port": 6380, "db": 2})


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("dns:///embedder:50051", "embedder", 50051),
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("[::1]:50051", "::1", 50051),
        ("unix:/run/quintet.sock", "/run/quintet.sock", None),
        ("embedder", "embedder", None),
        ("", None, None),
    ],
)
def test_a_targets_server_is_told(target: str, address: str | None, port: int | None) -> None:
    told = {"server.address": address, "server.port": port}
    assert server_attributes(target) == {k: v for k, v in told.items() if v is not None}


@pytest.mark.parametrize(
    ("error", "name", "status"),
    [
        (ServiceError(Reason.OVERLOADED, "secret"), "OVERLOADED", StatusCode.ERROR),
        (ValueError("secret"), "ValueError", StatusCode.ERROR),
        (asyncio.CancelledError("secret"), "CANCELLED", StatusCode.UNSET),
    ],
)
def test_a_failure_is_named_without_its_message(
    spans: InMemorySpanExporter, error: BaseException, name: str, status: StatusCode
) -> None:
    with pytest.raises(type(error)), working("work", {}):
        raise error
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == name
    assert span.status.status_code is status
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    ("commands", "name", "more"),
    [
        ([("MGET", "secret")], "MGET", {}),
        ([("SET", "secret", b"1"), ("GET", "secret")], "PIPELINE", {"db.operation.batch.size": 2}),
        ([("PUBLISH", "c", b"secret")] * 3, "PIPELINE PUBLISH", {"db.operation.batch.size": 3}),
        ([("EVALSHA", "ab12", 1, "secret")], "EVALSHA", {"db.stored_procedure.name": "ab12"}),
    ],
)
def test_a_round_trip_to_redis_is_named_by_its_commands_and_tells_no_key(
    spans: InMemorySpanExporter,
    commands: list[tuple[str | bytes | int, ...]],
    name: str,
    more: dict[str, str | int],
) -> None:
    with working("call", {}), REDIS.around(commands):
        pass
    span = spans.get_finished_spans()[0]
    assert (span.name, span.kind) == (name, SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "db.system.name": "redis",
        "db.namespace": "2",
        "server.address": "cache",
        "server.port": 6380,
        "db.operation.name": name,
        **more,
    }


def test_a_round_trip_outside_a_recorded_call_has_no_span(spans: InMemorySpanExporter) -> None:
    with REDIS.around([("MGET", "key")]) as span:
        assert span is INVALID_SPAN
    assert spans.get_finished_spans() == ()


def test_an_error_that_redis_replies_is_named(spans: InMemorySpanExporter) -> None:
    with working("call", {}), REDIS.around([("GET", "key")]) as span:
        note_replies(span, [ResponseError("secret")])
    told = spans.get_finished_spans()[0]
    assert (told.attributes or {})["error.type"] == "ResponseError"
    assert told.status.status_code is StatusCode.ERROR
    assert "secret" not in told.to_json()


async def test_a_task_for_several_calls_is_in_none_of_their_traces(
    spans: InMemorySpanExporter,
) -> None:
    async def current() -> trace.Span:
        return trace.get_current_span()

    with working("call", {}) as span:
        assert await asyncio.create_task(current()) is span
        assert await asyncio.create_task(current(), context=outside_calls()) is INVALID_SPAN


def test_the_names_are_quintets_own_and_each_is_documented() -> None:
    from pathlib import Path

    names = [value for name, value in vars(attributes).items() if name.isupper()]
    text = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text(encoding="utf-8")
    assert len(names) == len(set(names)) > 20
    for name in names:
        assert name.startswith("quintet.")
        assert f"`{name}`" in text, name
