"""What tenants have spent by the usage that is counted, for who holds their budgets."""

from __future__ import annotations

from collections.abc import Sequence

from quintet_gateway.admission.budget import Budget
from quintet_gateway.usage.store import UsageStore


class CountedSpending:
    """Implements `books.Spending`, in the price table's `currency`."""

    def __init__(self, store: UsageStore, currency: str) -> None:
        self._store = store
        self._currency = currency

    async def __call__(self, budgets: Sequence[Budget]) -> list[int]:
        """Return what is spent of each. Raises `ServiceError` as the database does."""
        spans = [(it.tenant, it.first, it.end) for it in budgets]
        return await self._store.spent(spans, self._currency)
