"""The limits, wherever they are kept: in Redis, or here while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import Context
from dataclasses import replace
from typing import Any

from prometheus_client import Counter

from quintet_gateway.admission.ahead import Ahead
from quintet_gateway.admission.books import Books, Spending
from quintet_gateway.admission.budget import Budget
from quintet_gateway.admission.demand import Demand, Places, Verdict
from quintet_gateway.admission.local import LocalLimits
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.admission.shared import BATCH, SharedLimits
from quintet_servicekit.background import beside
from quintet_servicekit.cache import AwayError, Remote
from quintet_servicekit.errors import Reason, ServiceError

_UNSHARED = Counter(
    "quintet_limits_unshared_total", "Decisions without Redis, which is set and away."
)
RECONCILE_SECONDS = 5.0
"""How often what Redis knows to be spent is held against the database."""
RENEWALS = 3
"""Renewals of a place in the time of its lease."""


class Limiter:
    """Takes what calls demand, and gives back what they did not use."""

    def __init__(
        self, settings: LimitSettings, remote: Remote | None, spending: Spending | None = None
    ) -> None:
        self._settings = settings
        self._books = Books(spending)
        self._local = LocalLimits(1 / settings.replicas)
        self._shared: SharedLimits | None = None
        if remote is not None:
            self._shared = SharedLimits(remote, lease_seconds=settings.lease_seconds)
        self._ahead = Ahead(self.take)
        self._held: dict[str, tuple[Places, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, demand: Demand) -> Verdict:
        """Return what the limits say to a demand, which is taken if they admit it.

        Raises `ServiceError` DEPENDENCY_UNAVAILABLE where nothing is admitted without Redis.
        """
        if demand.places:
            # Before it is known whether they are: a caller may leave in between.
            self._held[demand.holder] = demand.places
        if self._shared is None:
            return await self._taken_here(demand)
        try:
            return await self._taken_of_all(self._shared, demand)
        except AwayError as error:
            _UNSHARED.inc()
            if self._settings.without_redis == "closed":
                raise ServiceError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    "nobody can tell whether the limits are reached",
                    metadata={"dependency": "redis"},
                    retry_after=1.0,
                ) from error
            if self._settings.without_redis == "open":
                return Verdict(admitted=True, shared=False, counted=False)
            return await self._taken_here(demand)

    async def _taken_of_all(self, shared: SharedLimits, demand: Demand) -> Verdict:
        verdict = await shared.take(demand)
        if verdict.states is None:
            # A new period, or a Redis that has lost what it had.
            try:
                spent = await self._books.spent(demand.budgets)
            except ServiceError as error:
                raise AwayError("nobody knows what is spent") from error
            await shared.note_spent(spent)
            verdict = await shared.take(demand)
            if verdict.states is None:
                raise AwayError("books are lost as soon as they are made")
        if demand.budgets and verdict.admitted:
            self._books.note(demand.budgets, verdict.states or ())
            self._local.budgets.forget()
        return verdict

    async def _taken_here(self, demand: Demand) -> Verdict:
        unknown = self._local.budgets.unknown(demand.budgets)
        if unknown:
            for budget, spent in await self._books.spent_as_known(unknown):
                self._local.budgets.begin(budget, spent)
        return replace(self._local.take(demand), shared=False)

    async def take_request(self, demand: Demand) -> Verdict:
        """Do as `take` for one request of a caller who makes many; see `ahead.py`."""
        if self._shared is None or demand.places:
            return await self.take(demand)
        return await self._ahead.take(demand)

    def settle(self, demand: Demand, verdict: Verdict, cost: int, spent: int = 0) -> None:
        """Change the `cost` of what was taken, and what was reserved to what was `spent`;
        nobody waits for it."""
        if not verdict.counted:
            return
        if self._shared is None or not verdict.shared:
            self._local.settle(demand, cost, spent)
        elif (cost != demand.cost and demand.windows) or demand.budgets:
            change = replace(
                demand,
                cost=cost - demand.cost,
                force=True,
                amount=spent,
                reserved=demand.amount,
            )
            self._start(self._shared.take(change))

    def charge(self, budgets: tuple[Budget, ...], spent: int) -> None:
        """Take from budgets what was spent without a reservation; nobody waits for it."""
        charge = Demand((), budgets=budgets, amount=spent, force=True)
        if self._shared is not None:
            self._start(self._shared.take(charge))
        else:
            self._local.take(charge)

    def release(self, holder: str) -> None:
        """Give back the places of a holder; nobody waits for it."""
        places = self._held.pop(holder, ())
        self._local.release(places, holder)
        if self._shared is not None and places:
            self._start(self._shared.release(places, holder))

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        # It may outlast the call, and so is not in its trace.
        task = asyncio.create_task(_unless_away(work), name="limits", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew(self) -> None:
        """Let those who hold places hold them, for as long as this replica lives."""
        assert self._shared is not None
        while True:
            await asyncio.sleep(self._settings.lease_seconds / RENEWALS)
            await self._hold(self._shared)

    async def _hold(self, shared: SharedLimits) -> None:
        held = [(place, holder) for holder, places in self._held.items() for place in places]
        for start in range(0, len(held), BATCH):
            batch = [it for it in held[start : start + BATCH] if it[1] in self._held]
            if batch:
                await _unless_away(shared.hold(batch))
            for place, holder in batch:
                if holder not in self._held:
                    # It left meanwhile, and its place may have been kept after that.
                    await _unless_away(shared.release([place], holder))

    async def _reconcile(self) -> None:
        """Tell Redis what is spent by the database: more, where a settlement did not get
        there, or where Redis has gone back to what it had saved."""
        assert self._shared is not None
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            # While either is away there is nothing to tell, or nobody to tell it to.
            with suppress(AwayError, ServiceError):
                await self._shared.note_spent(await self._books.spent(self._books.in_use()))

    async def _aclose(self) -> None:
        """Wait until all is given back."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._shared is not None:
            await self._shared.aclose()


@asynccontextmanager
async def open_limiter(
    settings: LimitSettings, remote: Remote | None, spending: Spending | None = None
) -> AsyncIterator[Limiter]:
    """Open the limits, in `remote` or, without it, in this replica alone. What is spent of
    budgets is in the database, if there is one, told of by `spending`."""
    limiter = Limiter(settings, remote, spending)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(limiter._aclose)
        if remote is not None:
            await stack.enter_async_context(beside(limiter._renew, "places"))
            if spending is not None:
                await stack.enter_async_context(beside(limiter._reconcile, "budgets"))
        yield limiter


async def _unless_away(work: Coroutine[Any, Any, Any]) -> None:
    # What could not be given back flows out with time, and a place's lease ends.
    with suppress(AwayError):
        await work
