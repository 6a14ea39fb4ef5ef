"""Spans of round trips to Redis, by OpenTelemetry's conventions for it.

Only within a call that is recorded: a look-up of a third of a millisecond should not pay
for what nobody reads. Keys and values are never told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from redis.exceptions import ResponseError

from quintet_servicekit import telemetry
from quintet_servicekit.spans import note_failure


class RedisSpans:
    """Makes the spans of one server; `connection` holds its host, port and db."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._server: dict[str, str | int] = {
            "db.system.name": "redis",
            "db.namespace": str(connection.get("db", 0)),
            "server.address": str(connection.get("host") or connection.get("path") or "localhost"),
        }
        if "path" not in connection:
            self._server["server.port"] = int(connection.get("port", 6379))

    @contextmanager
    def around(self, commands: Sequence[Sequence[str | bytes | int | float]]) -> Iterator[Span]:
        """Yield the span of a round trip of `commands`, at least one."""
        if not trace.get_current_span().is_recording():
            yield INVALID_SPAN
            return
        span = telemetry.tracer().start_span(
            (attributes := self._attributes(commands))["db.operation.name"],
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )
        try:
            yield span
        except BaseException as error:
            note_failure(span, error)
            raise
        finally:
            span.end()

    def _attributes(
        self, commands: Sequence[Sequence[str | bytes | int | float]]
    ) -> dict[str, Any]:
        names = {str(command[0]) for command in commands}
        name = names.pop() if len(names) == 1 else ""
        if len(commands) > 1:
            name = f"PIPELINE {name}".rstrip()
            return {
                **self._server,
                "db.operation.name": name,
                "db.operation.batch.size": len(commands),
            }
        if name == "EVALSHA":
            script = str(commands[0][1])
            return {
                **self._server,
                "db.operation.name": name,
                "db.stored_procedure.name": script,
            }
        return {**self._server, "db.operation.name": name}


def note_replies(span: Span, replies: Sequence[Any]) -> None:
    """Note on a round trip's span that one of the replies is an error."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            note_failure(span, reply)
            return
