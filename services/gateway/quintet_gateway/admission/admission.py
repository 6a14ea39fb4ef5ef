"""Admits calls within their limits: requests and streams before anything else, tokens
before they are spent.

Tokens are known only after the answer. So what they will be at most is reserved when work
begins that no cache has done, and settled to what they were, however it ends. Budgets
belong to the same two steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import cache
from typing import Any
from uuid import uuid4

import grpc
from opentelemetry import trace
from prometheus_client import Counter

from quintet_gateway.admission.demand import Demand, Verdict
from quintet_gateway.admission.limiter import Limiter
from quintet_gateway.admission.policies import Policies
from quintet_gateway.billing.meter import Meter
from quintet_servicekit import identity
from quintet_servicekit.attributes import LIMITS_WAIT
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.trailers import add_trailers

_REFUSED = Counter("quintet_limits_refused_total", "Refusals, by the limit's name.", ("limit",))
_refused = cache(_REFUSED.labels)

LIMIT_KEY = "quintet-limit"
"""Trailer with the name of the limit that refuses, or of which the least is left."""
REMAINING_KEY = "quintet-limit-remaining"
"""What is left of it."""
RESET_KEY = "quintet-limit-reset-ms"
"""When all of it is."""

Context = grpc.aio.ServicerContext[Any, Any]


class Admission:
    """Admits calls of the methods of `services` but for the `free` ones; every call of the
    others is.

    Implements `interceptor.Guard`.
    """

    def __init__(
        self,
        limiter: Limiter,
        policies: Policies,
        *,
        services: tuple[str, ...] = (),
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._limiter = limiter
        self._policies = policies
        self._services = services
        self._free = free

    def around(self, method: str, behaviour: Any, *, streams: bool) -> Any:
        """Return a method's behaviour behind the limits."""
        service, _, name = method.rpartition("/")
        if service not in self._services or name in self._free:
            return behaviour

        async def unary(request: Any, context: Context) -> Any:
            await self._admit(context, "")
            return await behaviour(request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            holder = uuid4().hex
            try:
                await self._admit(context, holder)
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            finally:
                self._limiter.release(holder)

        return stream if streams else unary

    async def _admit(self, context: Context, holder: str) -> None:
        """Take a request, and for a `holder` a stream; tell in the trailers what is left.

        Raises `ServiceError` RATE_LIMITED.
        """
        limits = self._policies.of(identity.current())
        demand = Demand(limits.requests, 1, limits.streams if holder else (), holder)
        if not demand.windows and not demand.places:
            return
        began = time.perf_counter()
        verdict = await self._limiter.take_request(demand)
        waited = time.perf_counter() - began
        trace.get_current_span().set_attribute(LIMITS_WAIT, waited)
        if verdict.limit is not None:
            add_trailers(
                context,
                (LIMIT_KEY, verdict.limit.name),
                (REMAINING_KEY, str(verdict.remaining)),
                (RESET_KEY, str(_ms(verdict.reset_seconds))),
            )
        if not verdict.admitted:
            raise _refusal(verdict)

    @asynccontextmanager
    async def reserved(
        self, tokens: int, meter: Meter, *, patience_seconds: float = 0.0
    ) -> AsyncIterator[None]:
        """Reserve `tokens` for the work within, and take in the end what it has added to
        the meter.

        Raises `ServiceError` RATE_LIMITED where there are not as many, also not within
        `patience_seconds`.
        """
        windows = self._policies.of(identity.current()).tokens
        if not windows or not tokens:
            yield
            return
        demand = Demand(windows, min(tokens, *(it.limit for it in windows)))
        verdict = await self._taken(demand, time.monotonic() + patience_seconds)
        before = meter.tokens
        try:
            yield
        finally:
            self._limiter.settle(demand, verdict, meter.tokens - before)

    async def _taken(self, demand: Demand, until: float) -> Verdict:
        while True:
            verdict = await self._limiter.take(demand)
            if verdict.admitted:
                return verdict
            if time.monotonic() + verdict.wait_seconds > until:
                raise _refusal(verdict)
            await asyncio.sleep(verdict.wait_seconds)


def _refusal(verdict: Verdict) -> ServiceError:
    assert verdict.limit is not None
    _refused(verdict.limit.name).inc()
    return ServiceError(
        Reason.RATE_LIMITED,
        f"the limit of {verdict.limit.name} is reached",
        metadata={
            "limit": verdict.limit.name,
            "remaining": str(verdict.remaining),
            "reset_ms": str(_ms(verdict.reset_seconds)),
        },
        retry_after=verdict.wait_seconds,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
