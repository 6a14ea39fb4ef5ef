"""Logs, traces and metrics of a process.

`configure` is called once, by the server. Everything else asks `tracer()` and
`logger()` for what it needs.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import sys
import threading
import wsgiref.simple_server
from collections.abc import Callable, MutableMapping
from functools import cache, partial
from typing import Any, cast

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    disable_created_metrics,
    make_wsgi_app,
)

from quintet_servicekit.settings import ServiceSettings

EXPORT_DELAY_MS = 500
"""Longest wait of a span before it is exported: short enough that a person who
asks for the trace of an answer just given finds it."""

END_SECONDS = 2.0
"""How long the end of a process waits until its last spans are taken."""


@cache
def tracer() -> trace.Tracer:
    """Return the tracer of Quintet's own spans; asked for once, since asking costs as
    much as a span does."""
    return trace.get_tracer("quintet")


@cache
def logger() -> structlog.stdlib.BoundLogger:
    """Return the structured logger; it keeps what it was configured with at first use."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())


_content = False


def traces_content() -> bool:
    """Whether spans may hold questions, passages and answers."""
    return _content


def trace_id_of(span: trace.Span) -> str:
    """Return a span's trace id as 32 hex digits."""
    return trace.format_trace_id(span.get_span_context().trace_id)


def exemplar_of(span: trace.Span) -> dict[str, str] | None:
    """Return the exemplar of what was measured within `span`: its trace's id; None where the
    trace is not recorded, so that an exemplar leads somewhere."""
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return {"trace_id": trace.format_trace_id(context.trace_id)}


class SpanExport(BatchSpanProcessor):
    """Exports spans in batches, and the last ones for `END_SECONDS` at most: a receiver that
    is away would hold the end of the process up for half a minute."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        super().__init__(exporter, schedule_delay_millis=EXPORT_DELAY_MS)
        self._receiver = exporter

    def shutdown(self) -> None:
        """Export the last spans; those that are not taken in time are dropped."""
        giving_up = threading.Timer(END_SECONDS, self._receiver.shutdown)
        giving_up.daemon = True
        giving_up.start()
        super().shutdown()  # type: ignore[no-untyped-call]
        giving_up.cancel()


def configure(name: str, settings: ServiceSettings) -> TracerProvider:
    """Set up JSON logs on standard error and the export of spans for service `name`."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace_ids,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logger.cache_clear()
    structlog.contextvars.bind_contextvars(service=name)
    # Libraries log through the standard module: warnings only, to the same place.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")

    # When each series began tells nothing here, and would be a third as many series more.
    disable_created_metrics()  # type: ignore[no-untyped-call]

    global _content
    _content = settings.trace_content
    provider = TracerProvider(
        resource=Resource.create({"service.name": name}),
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
    )
    if settings.otlp_endpoint:
        # TLS is chosen by the scheme of the endpoint, as OTLP prescribes.
        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint,
            insecure=not settings.otlp_endpoint.startswith("https://"),
        )
        provider.add_span_processor(SpanExport(exporter))
    trace.set_tracer_provider(provider)
    return provider


def _json(event: Any, *, default: Callable[[Any], Any]) -> str:
    return _encoder(default).encode(event)


@cache
def _encoder(default: Callable[[Any], Any]) -> json.JSONEncoder:
    """Return the encoder that `json.dumps` would make anew for each line."""
    return json.JSONEncoder(default=default)


def _add_trace_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


class _MetricsServer(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    # A supervisor may hold the port reserved with SO_REUSEPORT, as gRPC's own
    # server expects; see deploy/local.
    allow_reuse_port = True


class _Ipv6MetricsServer(_MetricsServer):
    address_family = socket.AF_INET6


class _Silent(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: a scrape every few seconds is no news."""


def serve_metrics(
    host: str, port: int, registry: CollectorRegistry = REGISTRY
) -> wsgiref.simple_server.WSGIServer:
    """Serve `/metrics` in a thread and return the server; its `server_port` is
    the port that was bound. `shutdown()` ends it."""
    server = wsgiref.simple_server.make_server(
        host.strip("[]"),
        port,
        make_wsgi_app(registry),
        server_class=_Ipv6MetricsServer if ":" in host else _MetricsServer,
        handler_class=_Silent,
    )
    # It looks for `shutdown` only that often.
    serve = partial(server.serve_forever, poll_interval=0.1)
    threading.Thread(target=serve, name="metrics", daemon=True).start()
    return server
