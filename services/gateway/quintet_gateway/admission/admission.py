"""Admits calls within their limits: requests and streams before anything else, tokens
before they are spent.

Tokens are known only after the answer. So what they will be at most is reserved when work
begins that no cache has done, and settled to what they were, however it ends. Budgets
belong to the same two steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, get_args
from uuid import uuid4

import grpc
from opentelemetry import trace
from prometheus_client import Counter

from quintet_gateway.admission.budget import Budget, Period
from quintet_gateway.admission.demand import Demand, Verdict
from quintet_gateway.admission.limiter import Limiter
from quintet_gateway.admission.policies import Policies
from quintet_gateway.billing.bounds import NOTHING, Most
from quintet_gateway.billing.meter import Meter
from quintet_gateway.usage.ledger import Ledger
from quintet_servicekit import identity
from quintet_servicekit.attributes import LIMITS_WAIT
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.trailers import add_trailers

_REFUSED = Counter("quintet_limits_refused_total", "Refusals, by the limit's name.", ("limit",))
_refused = cache(_REFUSED.labels)

_BUDGETS = Counter(
    "quintet_budget_calls_total",
    "Calls that met a tenant's budget: warned, because it is nearly spent, or exhausted, which "
    "were refused or served cheaply.",
    ("period", "outcome"),
)
for _labels in product(get_args(Period), ("warned", "exhausted")):
    # From 0 on, so that the first one counts as an increase.
    _BUDGETS.labels(*_labels)
LEASE_SECONDS = 5.0
"""How long a reservation outlasts the time that its call has: what a dead replica had
reserved is free then."""
NOT_ASKED = Verdict(admitted=True, counted=False)

BUDGET_KEY = "quintet-budget"
"""Trailer with the budget that is nearly spent."""
BUDGET_LIMIT_KEY = "quintet-budget-limit-nanos"
"""All of it."""
BUDGET_REMAINING_KEY = "quintet-budget-remaining-nanos"
"""What is not spent of it."""

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
        ledger: Ledger,
        *,
        services: tuple[str, ...] = (),
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._limiter = limiter
        self._policies = policies
        self._ledger = ledger
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
            raise _refusal(verdict, demand)

    @asynccontextmanager
    async def reserved(
        self,
        tokens: int,
        meter: Meter,
        *,
        most: Most = NOTHING,
        patience_seconds: float = 0.0,
        or_cheaply: bool = False,
    ) -> AsyncIterator[ServiceError | None]:
        """Reserve `tokens`, and the `most` that it may cost, for the work within, and settle
        in the end what it has added to the meter.

        Yields None; where it may be done `or_cheaply`, the tenant's policy wants that and only
        its budget refuses, the refusal: what is then done is charged all the same.
        Raises `ServiceError` RATE_LIMITED or BUDGET_EXHAUSTED where there is not as much,
        also not within `patience_seconds`.
        """
        applied = self._policies.of(identity.current())
        budgets = applied.budgets(meter.day)
        windows = applied.tokens if tokens else ()
        demand = Demand(
            windows,
            min(tokens, *(it.limit for it in windows)) if windows else 0,
            budgets=budgets,
            amount=meter.due_nanos + most.nanos if budgets else 0,
            holder=uuid4().hex if budgets else "",
            lease_seconds=most.seconds + LEASE_SECONDS,
        )
        until, refused = time.monotonic() + patience_seconds, None
        verdict = NOT_ASKED
        try:
            verdict = await self._taken(demand, until)
        except ServiceError as error:
            cheaply = or_cheaply and applied.cheaply
            if not cheaply or error.reason is not Reason.BUDGET_EXHAUSTED:
                raise
            refused = error
            demand = replace(demand, budgets=())
            verdict = await self._taken(demand, until)
        if demand.budgets:
            self._warn(demand.budgets, verdict, meter)
        before = meter.tokens
        try:
            yield refused
        finally:
            if refused is None:
                spent = self._ledger.settle(meter)
            else:
                self.settle(meter)
                spent = 0
            self._limiter.settle(demand, verdict, meter.tokens - before, spent)

    def settle(self, meter: Meter) -> None:
        """Note what a meter has counted since the last time, and charge it to the budgets.

        Implements `trailers.Books`.
        """
        spent = self._ledger.settle(meter)
        if spent and (budgets := self._policies.of(identity.current()).budgets(meter.day)):
            self._limiter.charge(budgets, spent)

    async def _taken(self, demand: Demand, until: float) -> Verdict:
        if not demand.windows and not demand.budgets:
            return NOT_ASKED
        while True:
            verdict = await self._limiter.take(demand)
            if verdict.admitted:
                return verdict
            if time.monotonic() + verdict.wait_seconds > until:
                raise _refusal(verdict, demand)
            await asyncio.sleep(verdict.wait_seconds)

    @staticmethod
    def _warn(budgets: Sequence[Budget], verdict: Verdict, meter: Meter) -> None:
        """Have callers told of the budget of which the least is left, from its warning on."""
        states = zip(budgets, verdict.states or (), strict=False)
        near = [
            (state.spent / it.limit, it, state)
            for it, state in states
            if state.spent >= it.warn_at * it.limit
        ]
        if near:
            _, budget, state = max(near, key=lambda it: it[0])
            _BUDGETS.labels(budget.period, "warned").inc()
            meter.told = (
                (BUDGET_KEY, budget.name),
                (BUDGET_LIMIT_KEY, str(budget.limit)),
                (BUDGET_REMAINING_KEY, str(max(0, budget.limit - state.spent))),
            )


def _over_budget(verdict: Verdict, budget: Budget, demand: Demand) -> ServiceError:
    _BUDGETS.labels(budget.period, "exhausted").inc()
    return ServiceError(
        Reason.BUDGET_EXHAUSTED,
        f"the budget of {budget.name} has not left what this may cost at most",
        metadata={
            "budget": budget.name,
            "limit_nanos": str(budget.limit),
            "remaining_nanos": str(verdict.remaining),
            "needed_nanos": str(demand.amount),
        },
        retry_after=verdict.wait_seconds,
    )


def _refusal(verdict: Verdict, demand: Demand) -> ServiceError:
    assert verdict.limit is not None
    if isinstance(verdict.limit, Budget):
        return _over_budget(verdict, verdict.limit, demand)
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
