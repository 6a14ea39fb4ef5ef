"""What a response says in its trailers, from several who each know a part of it."""

from __future__ import annotations

from typing import Any

import grpc

Trailer = tuple[str, str | bytes]


def add_trailers(context: grpc.aio.ServicerContext[Any, Any], *trailers: Trailer) -> None:
    """Add trailers to those that the call has; they are sent however it ends."""
    context.set_trailing_metadata((*trailers_of(context), *trailers))


def trailers_of(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[Trailer, ...]:
    """Return the trailers that a call has so far."""
    return tuple(context.trailing_metadata() or ())
