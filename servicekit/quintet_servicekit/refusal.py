"""How the end of a call with an error is told, and what ends a call that is not even begun."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from quintet_servicekit import errors
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.trailers import Trailer

Context = grpc.aio.ServicerContext[Any, Any]
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailer by which gRPC clients are told when to try again; never, where it is negative."""


def refuser(error: ServiceError) -> Callable[[Context], Awaitable[None]]:
    """Return what ends a call with the error, of which all but the time to come back is made
    once: a refusal costs a fourth of the least call, and no span."""
    details = details_of(error)

    async def refuse(context: Context) -> None:
        await context.abort(error.code, error.message, told(error, details))

    return refuse


def refusing(error: ServiceError) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that ends a call of whatever method with the error.

    It is one of streams, because then gRPC reads no request.
    """
    refuse = refuser(error)

    async def handle(_: Any, context: Context) -> None:
        await refuse(context)

    return grpc.stream_stream_rpc_method_handler(handle)


def details_of(error: ServiceError) -> tuple[str, bytes]:
    """Return the trailer that holds the details of an error."""
    return errors.DETAILS_KEY, errors.to_status(error).SerializeToString()


def told(error: ServiceError, details: Trailer) -> tuple[Trailer, ...]:
    """Return an error's `details` and, for clients that retry on their own, when to."""
    if error.reason in (Reason.CIRCUIT_OPEN, Reason.RATE_LIMITED, Reason.BUDGET_EXHAUSTED):
        # Else the caller's channel would try again at once what is refused for a while.
        return details, (PUSHBACK_KEY, "-1")
    if error.reason is Reason.OVERLOADED and error.retry_after is not None:
        # Those who are refused together shall not come back together.
        pause = error.retry_after * random.uniform(0.5, 1.5)  # noqa: S311
        return details, (PUSHBACK_KEY, str(max(1, round(pause * 1000))))
    return (details,)
