"""The limits as one replica keeps them, in its memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from quintet_gateway.admission.demand import (
    STREAM_WAIT_SECONDS,
    Demand,
    Places,
    Verdict,
    Window,
    over_budget,
)
from quintet_gateway.admission.local_budgets import LocalBudgets

MOST_KEYS = 100_000
"""Windows that are remembered, some 200 bytes each; the least recently used is full again."""
ROUNDING = 1e-6
"""Units by which sums of fractions may err."""


class LocalLimits:
    """A `share`, above 0 and up to 1, of every limit; at least one unit and one place.

    It does what `script.lua` does in Redis. `clock` in seconds.
    """

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._held: dict[str, set[str]] = {}
        self.budgets = LocalBudgets(share)

    def take(self, demand: Demand) -> Verdict:
        """Take what is demanded if there is as much of everything."""
        now = self._clock()
        limits = [self._limit(it) for it in demand.windows]
        levels: list[float] = []
        refusal: Verdict | None = None
        tightest, least = Verdict(admitted=True), float("inf")
        for window, limit in zip(demand.windows, limits, strict=True):
            level = self._level(window, limit, now)
            cost = demand.cost if demand.force else min(demand.cost, limit)
            after = max(0.0, level + cost)
            levels.append(after)
            wait = (after - limit) * window.seconds / limit
            if not demand.force and after > limit + ROUNDING:
                if refusal is None or wait > refusal.wait_seconds:
                    refusal = _told(window, limit, level, wait)
            elif (limit - after) / limit < least:
                tightest, least = _told(window, limit, after), (limit - after) / limit
        for places in demand.places:
            if refusal is None and len(self._held.get(places.key, ())) >= self._limit(places):
                refusal = Verdict(False, places, wait_seconds=STREAM_WAIT_SECONDS)
        if refusal is not None:
            return refusal
        if demand.force:
            self.budgets.settle(demand.budgets, demand.reserved, demand.amount)
        else:
            refused, states = self.budgets.hold(demand.budgets, demand.amount)
            tightest = replace(tightest, states=states)
            if refused:
                state = states[refused - 1]
                return over_budget(demand.budgets[refused - 1], state, demand.amount)
        for window, level in zip(demand.windows, levels, strict=True):
            self._levels[window.key] = (level, now)
            self._levels.move_to_end(window.key)
        while len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
        for places in demand.places:
            self._held.setdefault(places.key, set()).add(demand.holder)
        return tightest

    def settle(self, demand: Demand, cost: int, spent: int = 0) -> None:
        """Change the cost of a demand that was taken, and the amount that was reserved, to
        what they turned out to be. Of a share no more was taken than all of it."""
        self.budgets.settle(demand.budgets, demand.amount, spent)
        now = self._clock()
        for window in demand.windows:
            limit = self._limit(window)
            change = cost - min(demand.cost, limit)
            level = max(0.0, self._level(window, limit, now) + change)
            self._levels[window.key] = (level, now)

    def release(self, places: Iterable[Places], holder: str) -> None:
        """Give places back; those that it does not hold are nobody's."""
        for place in places:
            holders = self._held.get(place.key, set())
            holders.discard(holder)
            if not holders:
                self._held.pop(place.key, None)

    def _limit(self, of: Window | Places) -> int:
        return max(1, int(of.limit * self._share))

    def _level(self, window: Window, limit: int, now: float) -> float:
        level, at = self._levels.get(window.key, (0.0, now))
        return max(0.0, level - (now - at) * limit / window.seconds)


def _told(window: Window, limit: int, level: float, wait: float | None = None) -> Verdict:
    return Verdict(
        admitted=wait is None,
        limit=window,
        remaining=max(0, int(limit - level + ROUNDING)),
        reset_seconds=level * window.seconds / limit,
        wait_seconds=wait or 0.0,
    )
