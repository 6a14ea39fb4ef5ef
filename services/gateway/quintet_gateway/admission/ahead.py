"""Requests of a busy caller that are taken a few ahead, so that most of them need no round
trip to Redis.

Only where plenty is left of every limit: near a limit, and at limits below two hundred, each
request is decided in Redis, exactly. What was taken ahead and not used within a second is
as good as used.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from quintet_gateway.admission.demand import Demand, Verdict, Window

LEAST_LEFT = 200
"""Units that must be left of the tightest limit."""
SHARE = 100
"""One in as many of those that are left is taken ahead."""
MOST = 32
"""And at most as many: what each replica may have admitted too few, or a second late."""
SECONDS = 1.0
"""How long they may be used."""
MOST_CALLERS = 10_000
"""Callers of whom something may be taken ahead, some 500 bytes each."""


@dataclass(slots=True)
class _Stock:
    verdict: Verdict
    next: int
    """How many to take ahead the next time."""
    left: int = 0
    until: float = 0.0
    asking: bool = False


class Ahead:
    """Takes requests by `take`, some of them ahead. `clock` in seconds."""

    def __init__(
        self,
        take: Callable[[Demand], Awaitable[Verdict]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = take
        self._clock = clock
        self._stocks: dict[tuple[Window, ...], _Stock] = {}

    async def take(self, demand: Demand) -> Verdict:
        """Take what is demanded, one request, if there is one. Raises as `take` does."""
        stock = self._stocks.get(demand.windows)
        if stock is not None and stock.left and self._clock() < stock.until:
            stock.left -= 1
            return replace(stock.verdict, remaining=stock.verdict.remaining + stock.left)
        if stock is None or stock.asking or not stock.next:
            return self._noted(demand, await self._take(demand))
        stock.asking = True
        try:
            verdict = await self._take(replace(demand, cost=1 + stock.next))
        finally:
            stock.asking = False
        if not verdict.admitted:
            return self._noted(demand, await self._take(demand))
        if verdict.shared:
            stock.left, stock.until = stock.next, self._clock() + SECONDS
        noted = self._noted(demand, verdict)
        return replace(noted, remaining=noted.remaining + stock.left)

    def _noted(self, demand: Demand, verdict: Verdict) -> Verdict:
        """Note how many to take ahead next, by what is left."""
        plenty = verdict.admitted and verdict.shared and verdict.remaining >= LEAST_LEFT
        number = min(MOST, verdict.remaining // SHARE) if plenty else 0
        stock = self._stocks.get(demand.windows)
        if stock is not None:
            stock.verdict, stock.next = verdict, number
        elif number:
            if len(self._stocks) >= MOST_CALLERS:
                self._stocks.clear()
            self._stocks[demand.windows] = _Stock(verdict, number)
        return verdict
