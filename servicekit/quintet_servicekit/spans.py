"""Spans of work inside a service, and what a span tells of how its work ended."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from quintet_servicekit import telemetry
from quintet_servicekit.errors import ServiceError

Value = str | bool | int | float | Sequence[str]


@contextmanager
def working(
    name: str, attributes: Mapping[str, Value], kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span]:
    """Yield a span that is current within the block, and ends with it.

    Not for a block in an asynchronous generator, whose context is its consumer's.
    """
    with telemetry.tracer().start_as_current_span(
        name,
        kind=kind,
        attributes=attributes,
        # Messages and stacks may quote what a span must not hold.
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            note_failure(span, error)
            raise


def note_failure(span: Span, error: BaseException) -> None:
    """Name on the span what ended its work, without the message. A cancellation is the
    caller's wish: it is named, and is no error."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        span.set_attribute("error.type", "CANCELLED")
        return
    if isinstance(error, ServiceError):
        name = error.reason.value
    else:  # a database's error has a code, which says more than its class
        name = getattr(error, "sqlstate", None) or type(error).__name__
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR))


@cache
def server_attributes(target: str) -> Mapping[str, str | int]:
    """Return the attributes `server.*` of a gRPC target such as "dns:///embedder:50051" or
    "127.0.0.1:50051"; none for an empty one."""
    if target.startswith("unix:"):
        return {"server.address": target.removeprefix("unix:")}
    name = target.rpartition("/")[2]
    host, _, port = name.rpartition(":")
    if port.isdigit() and host:
        return {"server.address": host.strip("[]"), "server.port": int(port)}
    return {"server.address": name} if name else {}


def outside_calls() -> contextvars.Context:
    """Return a copy of the context in which no span is current: for a task that works for
    several calls and happens to be started by one."""
    context = contextvars.copy_context()
    context.run(otel_context.attach, otel_context.Context())
    return context
