"""Traces of a stack: kept as files, and written in the form Jaeger's UI opens.

A trace is a file of JSON lines, one a span, in the order of arrival; the newest
traces are kept. `load_trace` and `to_jaeger` need no running stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST_SPANS = 5000
"""Spans kept of one trace; one of ours has some tens. Bounds a file to a few MB."""

_TRACE_ID = re.compile(r"[0-9a-f]{32}")

Attributes = Mapping[str, Any]
"""Name → str, bool, int, float, or a list of those."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a span, at `time_ns` nanoseconds since 1970."""

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A span, its times in nanoseconds since 1970 and its ids in lower-case hex.

    `parent_id` is "" for a root; `kind` is "internal", "server", "client",
    "producer" or "consumer"; `links` are (trace id, span id).
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    error: bool = False
    status_message: str = ""
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)
    events: Sequence[Event] = ()
    links: Sequence[tuple[str, str]] = ()


class TraceNotFoundError(LookupError):
    """No span of this trace is kept."""


class TraceStore:
    """Writes spans to one file a trace, and keeps the `most` newest traces."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder = folder
        self._most = most
        oldest_first = sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
        # Spans of this run; those of an earlier one are not counted again.
        self._spans = dict.fromkeys((file.stem for file in oldest_first), 0)

    def add(self, spans: Iterable[Span]) -> None:
        """Append spans to their traces' files; blocking."""
        by_trace: dict[str, list[str]] = {}
        for span in spans:
            by_trace.setdefault(span.trace_id, []).append(json.dumps(asdict(span)))
        for trace_id, lines in by_trace.items():
            kept = self._spans.setdefault(trace_id, 0)
            lines = lines[: MOST_SPANS - kept]
            self._spans[trace_id] = kept + len(lines)
            with _file(self._folder, trace_id).open("a") as file:
                file.writelines(line + "\n" for line in lines)
        while len(self._spans) > self._most:
            oldest = next(iter(self._spans))
            del self._spans[oldest]
            _file(self._folder, oldest).unlink(missing_ok=True)


def load_trace(state_dir: Path, trace_id: str) -> list[Span]:
    """Return the spans of a trace, by start time.

    Services send spans within a second of their end, so a trace that was just
    finished may still be incomplete. Raises `TraceNotFoundError`.
    """
    trace_id = trace_id.lower()
    if not _TRACE_ID.fullmatch(trace_id):
        raise TraceNotFoundError("a trace id has 32 hexadecimal digits")
    try:
        text = _file(state_dir / "traces", trace_id).read_text()
    except FileNotFoundError:
        raise TraceNotFoundError(f"no trace {trace_id} is kept in {state_dir}") from None
    # The receiver may be in the midst of the last line.
    lines = text.rpartition("\n")[0].splitlines()
    return sorted((_parse(line) for line in lines), key=lambda span: span.start_ns)


def _file(folder: Path, trace_id: str) -> Path:
    return folder / f"{trace_id}.jsonl"


def _parse(line: str) -> Span:
    values = json.loads(line)
    values["events"] = [Event(**event) for event in values["events"]]
    values["links"] = [(trace_id, span_id) for trace_id, span_id in values["links"]]
    return Span(**values)


def to_jaeger(spans: Iterable[Span]) -> dict[str, Any]:
    """Return the JSON that Jaeger's UI opens ("JSON File", or a dropped file).

    The form is that of Jaeger's HTTP API: whole microseconds, one process a
    service, parents as CHILD_OF references and links as FOLLOWS_FROM.
    """
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    return {
        "data": [_jaeger_trace(trace_id, of_trace) for trace_id, of_trace in traces.items()],
        "total": len(traces),
        "limit": 0,
        "offset": 0,
        "errors": None,
    }


def _jaeger_trace(trace_id: str, spans: Sequence[Span]) -> dict[str, Any]:
    processes: dict[str, dict[str, Any]] = {}
    process_ids: dict[str, str] = {}
    for span in spans:
        if span.service not in process_ids:
            process_ids[span.service] = f"p{len(process_ids) + 1}"
            rest = {k: v for k, v in span.resource.items() if k != "service.name"}
            processes[process_ids[span.service]] = {
                "serviceName": span.service,
                "tags": _tags(rest),
            }
    return {
        "traceID": trace_id,
        "spans": [_jaeger_span(span, process_ids[span.service]) for span in spans],
        "processes": processes,
        "warnings": None,
    }


def _jaeger_span(span: Span, process_id: str) -> dict[str, Any]:
    start = span.start_ns // 1000
    references = [("FOLLOWS_FROM", *link) for link in span.links]
    if span.parent_id:
        references.insert(0, ("CHILD_OF", span.trace_id, span.parent_id))
    status: dict[str, Any] = {}
    if span.error:
        status = {"error": True, "otel.status_code": "ERROR"}
        if span.status_message:
            status["otel.status_description"] = span.status_message
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "flags": 1,
        "operationName": span.name,
        "references": [
            {"refType": kind, "traceID": trace_id, "spanID": span_id}
            for kind, trace_id, span_id in references
        ],
        "startTime": start,
        # From rounded ends, so that a child never sticks out of its parent.
        "duration": span.end_ns // 1000 - start,
        "tags": _tags({**span.attributes, "span.kind": span.kind, **status}),
        "logs": [
            {
                "timestamp": event.time_ns // 1000,
                "fields": _tags({"event": event.name, **event.attributes}),
            }
            for event in span.events
        ],
        "processID": process_id,
        "warnings": None,
    }


def _tags(attributes: Attributes) -> list[dict[str, Any]]:
    return [_tag(key, value) for key, value in attributes.items()]


def _tag(key: str, value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"key": key, "type": "bool", "value": value}
        # The UI's numbers are doubles: a larger integer would be shown wrongly.
        case int() if abs(value) < 2**53:
            return {"key": key, "type": "int64", "value": value}
        case float():
            return {"key": key, "type": "float64", "value": value}
        case str():
            return {"key": key, "type": "string", "value": value}
    return {"key": key, "type": "string", "value": json.dumps(value)}
