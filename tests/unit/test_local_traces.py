"""Keeping of traces, and the form that Jaeger's UI opens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from quintet_local.otlp import spans_of
from quintet_local.traces import (
    MOST_SPANS,
    Event,
    Span,
    TraceNotFoundError,
    TraceStore,
    load_trace,
    to_jaeger,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(number: int = 1, *, trace_id: str = TRACE, **changes: Any) -> Span:
    values: dict[str, Any] = {
        "trace_id": trace_id,
        "span_id": f"{number:016x}",
        "parent_id": "",
        "service": "gateway",
        "name": "work",
        "kind": "internal",
        "start_ns": number * 1_000_000,
        "end_ns": number * 1_000_000 + 5_000,
    }
    return Span(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def test_spans_are_read_back_as_they_were_by_start_time(tmp_path: Path, folder: Path) -> None:
    full = span(
        2,
        parent_id="1".zfill(16),
        error=True,
        status_message="failed",
        attributes={"text": "Ünï\ncode", "number": 3, "ratio": 0.5, "flag": True, "list": ["a"]},
        resource={"service.name": "gateway"},
        events=[Event("exception", 7, {"exception.type": "ValueError"})],
        links=[("ab" * 16, "cd" * 8)],
    )
    store = TraceStore(folder, most=10)
    store.add([full])
    store.add([span(1)])
    assert load_trace(tmp_path, TRACE.upper()) == [span(1, events=[], links=[]), full]


@pytest.mark.parametrize("trace_id", ["", "f" * 32, "../../etc/passwd", "0" * 31, "g" * 32])
def test_an_unknown_or_malformed_trace_id_is_not_found(tmp_path: Path, trace_id: str) -> None:
    with pytest.raises(TraceNotFoundError):
        load_trace(tmp_path, trace_id)


def test_only_the_newest_traces_are_kept_across_runs(tmp_path: Path, folder: Path) -> None:
    first = TraceStore(folder, most=3)
    for number in range(5):
        first.add([span(trace_id=f"{number:032x}")])
    assert {file.stem for file in folder.iterdir()} == {f"{n:032x}" for n in (2, 3, 4)}
    for age, number in enumerate((4, 3, 2)):
        os.utime(folder / f"{number:032x}.jsonl", (1000 - age, 1000 - age))
    second = TraceStore(folder, most=3)
    second.add([span(trace_id=f"{9:032x}")])
    assert {file.stem for file in folder.iterdir()} == {f"{n:032x}" for n in (3, 4, 9)}


def test_a_trace_without_end_does_not_grow_without_end(tmp_path: Path, folder: Path) -> None:
    store = TraceStore(folder, most=3)
    for _ in range(3):
        store.add([span(number) for number in range(MOST_SPANS // 2)])
    assert len(load_trace(tmp_path, TRACE)) == MOST_SPANS


def test_an_export_becomes_spans_and_those_without_a_trace_are_dropped() -> None:
    sent = trace_pb2.Span(
        trace_id=bytes.fromhex(TRACE),
        span_id=b"\1" * 8,
        parent_span_id=b"\2" * 8,
        name="Ask",
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=10,
        end_time_unix_nano=20,
        attributes=[
            KeyValue(key="s", value=AnyValue(string_value="x")),
            KeyValue(key="b", value=AnyValue(bool_value=True)),
            KeyValue(key="i", value=AnyValue(int_value=-4)),
            KeyValue(key="f", value=AnyValue(double_value=1.5)),
            KeyValue(
                key="a",
                value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="y")])),
            ),
        ],
        events=[trace_pb2.Span.Event(name="first token", time_unix_nano=15)],
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message="UNAVAILABLE"),
    )
    resource = Resource(
        attributes=[KeyValue(key="service.name", value=AnyValue(string_value="gateway"))]
    )
    scope = trace_pb2.ScopeSpans(spans=[sent, trace_pb2.Span(name="no trace")])
    request = ExportTraceServiceRequest(
        resource_spans=[trace_pb2.ResourceSpans(resource=resource, scope_spans=[scope])]
    )
    assert list(spans_of(request)) == [
        Span(
            trace_id=TRACE,
            span_id="01" * 8,
            parent_id="02" * 8,
            service="gateway",
            name="Ask",
            kind="server",
            start_ns=10,
            end_ns=20,
            error=True,
            status_message="UNAVAILABLE",
            attributes={"s": "x", "b": True, "i": -4, "f": 1.5, "a": ["y"]},
            resource={"service.name": "gateway"},
            events=[Event("first token", 15)],
            links=[],
        )
    ]


def test_jaeger_gets_references_processes_and_whole_microseconds() -> None:
    parent = span(1, start_ns=1_000_999, end_ns=9_000_001)
    child = span(
        2,
        parent_id=parent.span_id,
        service="retriever",
        start_ns=2_000_500,
        end_ns=9_000_000,
        resource={"service.name": "retriever", "host.name": "here"},
        links=[("ab" * 16, "cd" * 8)],
    )
    [trace] = to_jaeger([parent, child])["data"]
    assert trace["traceID"] == TRACE
    assert [(s["startTime"], s["duration"]) for s in trace["spans"]] == [(1000, 8000), (2000, 7000)]
    assert trace["spans"][0]["references"] == []
    assert trace["spans"][1]["references"] == [
        {"refType": "CHILD_OF", "traceID": TRACE, "spanID": parent.span_id},
        {"refType": "FOLLOWS_FROM", "traceID": "ab" * 16, "spanID": "cd" * 8},
    ]
    processes = [trace["processes"][s["processID"]] for s in trace["spans"]]
    assert processes == [
        {"serviceName": "gateway", "tags": []},
        {
            "serviceName": "retriever",
            "tags": [{"key": "host.name", "type": "string", "value": "here"}],
        },
    ]


def test_jaeger_gets_typed_tags_events_as_logs_and_an_error_as_a_boolean() -> None:
    failed = span(
        kind="client",
        error=True,
        status_message="UNAVAILABLE",
        attributes={"s": "x", "b": False, "i": 7, "big": 2**60, "f": 1.5, "a": ["y", 1]},
        events=[Event("retry", 3_500, {"attempt": 2})],
    )
    document = to_jaeger([failed])
    assert json.loads(json.dumps(document)) == document
    [written] = document["data"][0]["spans"]
    assert {tag["key"]: (tag["type"], tag["value"]) for tag in written["tags"]} == {
        "s": ("string", "x"),
        "b": ("bool", False),
        "i": ("int64", 7),
        "big": ("string", str(2**60)),
        "f": ("float64", 1.5),
        "a": ("string", '["y", 1]'),
        "span.kind": ("string", "client"),
        "error": ("bool", True),
        "otel.status_code": ("string", "ERROR"),
        "otel.status_description": ("string", "UNAVAILABLE"),
    }
    assert written["logs"] == [
        {
            "timestamp": 3,
            "fields": [
                {"key": "event", "type": "string", "value": "retry"},
                {"key": "attempt", "type": "int64", "value": 2},
            ],
        }
    ]


def test_a_span_that_succeeded_has_no_error_tag() -> None:
    [written] = to_jaeger([span()])["data"][0]["spans"]
    assert "error" not in {tag["key"] for tag in written["tags"]}


def test_each_trace_is_one_item_of_the_document() -> None:
    document = to_jaeger([span(1), span(1, trace_id="1" * 32), span(2)])
    assert [(t["traceID"], len(t["spans"])) for t in document["data"]] == [
        (TRACE, 2),
        ("1" * 32, 1),
    ]


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    store = TraceStore(tmp_path / "traces", most=10)
    store.add([span()])
    with (tmp_path / "traces" / f"{TRACE}.jsonl").open("a") as file:
        file.write('{"trace_id": "0a')
    assert [it.span_id for it in load_trace(tmp_path, TRACE)] == [span().span_id]
