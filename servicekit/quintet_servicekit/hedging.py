"""A second attempt for a call that takes unusually long; the first answer wins.

After Dean and Barroso, "The tail at scale" (CACM 2013): the second attempt begins when the
first has taken longer than 95 of 100 did, so that it costs few calls more, and goes to
another replica, as the channel takes them in turn. It is for calls that change nothing.
gRPC's own hedgingPolicy is not an alternative: its C core, which Python uses, reads no such
policy from a service config.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from opentelemetry import trace
from prometheus_client import Counter

from quintet_servicekit import attributes
from quintet_servicekit.latency import Latency

_HEDGES = Counter("grpc_client_hedges_total", "Second attempts.", ("grpc_service", "grpc_method"))

CALLS = 100
"""Calls over which a method's latency is taken."""
LEAST_CALLS = 20
"""Calls before which nothing is known of it."""
QUANTILE = 0.95
MOST_TOKENS = 10.0
"""Second attempts that may come at once after a quiet time."""

Response = TypeVar("Response")


class Hedging:
    """Second attempts at calls of `methods`, of which there are at most `ratio` times as many
    as calls, and none for a method until twenty calls of it have been answered."""

    def __init__(self, service: str, methods: frozenset[str], *, ratio: float) -> None:
        self._service = service
        self._latencies = {it: Latency(calls=CALLS, share=QUANTILE) for it in methods}
        self._ratio = ratio
        self._tokens = MOST_TOKENS

    def delay(self, method: str) -> float | None:
        """Return the seconds after which a call is tried again; None: it is not."""
        latency = self._latencies.get(method)
        return None if latency is None or len(latency) < LEAST_CALLS else latency.quantile

    async def first(self, method: str, attempt: Callable[[float], Awaitable[Response]]) -> Response:
        """Return what the first attempt to succeed returns; the other one is cancelled.

        `attempt` is given the seconds that have passed. Raises as the first attempt does
        where none succeeds.
        """
        if method not in self._latencies:
            return await attempt(0.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._tokens = min(MOST_TOKENS, self._tokens + self._ratio)
        attempts = [asyncio.ensure_future(attempt(0.0))]
        try:
            delay = self.delay(method)
            if delay is not None:
                await asyncio.wait(attempts, timeout=delay)
                if not attempts[0].done() and self._tokens >= 1.0:
                    self._tokens -= 1.0
                    _HEDGES.labels(self._service, method).inc()
                    trace.get_current_span().add_event(
                        attributes.HEDGED, {"rpc.method": f"{self._service}/{method}"}
                    )
                    attempts.append(asyncio.ensure_future(attempt(loop.time() - began)))
            response = await _first_to_succeed(attempts)
            self._latencies[method].add(loop.time() - began)
            return response
        finally:
            for each in attempts:
                each.cancel()
            # What a loser raises is nobody's any more.
            await asyncio.gather(*attempts, return_exceptions=True)


async def _first_to_succeed(attempts: Sequence[asyncio.Future[Response]]) -> Response:
    pending = set(attempts)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            if not each.cancelled() and each.exception() is None:
                return each.result()
    return attempts[0].result()
