"""A small OTLP/gRPC receiver of spans, so that traces need no further server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from quintet_local.ports import HOST
from quintet_local.traces import Event, Span

_KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "producer",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
}


class Sink(Protocol):
    """Where received spans go; called in a thread, one call at a time."""

    def add(self, spans: Iterable[Span]) -> None:
        """Take spans."""
        ...


@asynccontextmanager
async def running_receiver(sink: Sink) -> AsyncIterator[str]:
    """Receive spans into `sink` and yield the address to send them to."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 * 2**20)])
    rpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
        _Receiver(sink), server
    )
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        await server.stop(grace=1)


class _Receiver(rpc.TraceServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._one_at_a_time = asyncio.Lock()

    async def Export(  # noqa: N802 - the contract's name
        self, request: messages.ExportTraceServiceRequest, context: Any
    ) -> messages.ExportTraceServiceResponse:
        async with self._one_at_a_time:
            await asyncio.to_thread(self._sink.add, list(spans_of(request)))
        return messages.ExportTraceServiceResponse()


def spans_of(request: messages.ExportTraceServiceRequest) -> Iterator[Span]:
    """Yield the spans of an export; those without a valid trace id are dropped."""
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if len(span.trace_id) == 16:
                    yield _span(span, resource)


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=str(resource.get("service.name", "unknown")),
        name=span.name,
        kind=_KINDS.get(span.kind, "internal"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        resource=resource,
        events=[
            Event(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case None:
            return ""
        case kind:
            return getattr(value, kind)
