"""Ends streams of callers whose credential ends meanwhile."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from quintet_servicekit.gates import Authenticator, Guard

Context = grpc.aio.ServicerContext[Any, Any]


class Standing:
    """Asks again who calls, every `seconds` of a stream and when the number of `changes` of
    credentials is another, after a response.

    An ingest lasts as long as its caller has documents: without this, so would the rights of
    a key that was revoked. Stands around what `inner` makes of each behaviour.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        inner: Guard,
        *,
        seconds: float,
        changes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._authenticator = authenticator
        self._inner = inner
        self._seconds = seconds
        self._changes = changes

    def around(self, method: str, behaviour: Any, *, streams: bool) -> Any:
        """Return a method's behaviour; a stream raises what the authenticator raises."""
        behaviour = self._inner.around(method, behaviour, streams=streams)
        if not streams:
            return behaviour

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            again, seen = time.monotonic() + self._seconds, self._changes()
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    # First: it may acknowledge what has been written.
                    yield response
                    if time.monotonic() >= again or self._changes() != seen:
                        seen = self._changes()
                        metadata = context.invocation_metadata() or ()
                        await self._authenticator.identify(method, metadata)
                        again = time.monotonic() + self._seconds

        return stream
