"""What is spent of budgets, as far as this replica can know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quintet_gateway.admission.budget import Budget, State
from quintet_servicekit.errors import ServiceError

MOST_BUDGETS = 10_000
"""Budgets that are remembered, some 500 bytes each; the one that was used first goes."""


class Spending(Protocol):
    """Tells what is spent by the usage in the database; see `usage.spending`."""

    async def __call__(self, budgets: Sequence[Budget]) -> list[int]: ...


class Books:
    """Remembers budgets that are in use and what Redis last said of them. Without `spending`
    that is all that is known."""

    def __init__(self, spending: Spending | None) -> None:
        self._spending = spending
        self._seen: dict[str, tuple[Budget, int]] = {}

    def note(self, budgets: Sequence[Budget], states: Sequence[State]) -> None:
        """Remember how budgets stand."""
        for budget, state in zip(budgets, states, strict=True):
            self._seen[budget.key] = (budget, state.spent)
        if len(self._seen) > MOST_BUDGETS:
            del self._seen[next(iter(self._seen))]

    def in_use(self) -> list[Budget]:
        """Return the budgets that are remembered, but for those whose period has ended."""
        ended = [key for key, (it, _) in self._seen.items() if it.ends_in <= 1.0]
        for key in ended:
            del self._seen[key]
        return [it for it, _ in self._seen.values()]

    async def spent(self, budgets: Sequence[Budget]) -> list[tuple[Budget, int]]:
        """Return what is spent of budgets at least. Raises `ServiceError` as the database
        does."""
        told = [0] * len(budgets)
        if self._spending is not None and budgets:
            told = await self._spending(budgets)
        return [
            (it, max(nanos, self._remembered(it))) for it, nanos in zip(budgets, told, strict=True)
        ]

    async def spent_as_known(self, budgets: Sequence[Budget]) -> list[tuple[Budget, int]]:
        """Return the same; with the database away too, what was remembered."""
        try:
            return await self.spent(budgets)
        except ServiceError:
            return [(it, self._remembered(it)) for it in budgets]

    def _remembered(self, budget: Budget) -> int:
        return self._seen.get(budget.key, (budget, 0))[1]
