"""Budgets as one replica keeps them, in its memory, while there is no Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet_gateway.admission.budget import Budget, State

MOST_BOOKS = 10_000
"""Budgets that are counted; beyond it those of which nothing is held are begun anew."""


@dataclass(slots=True)
class _Book:
    base: int
    """What all had spent when this replica began to count for itself."""
    spent: int = 0
    held: int = 0


class LocalBudgets:
    """A `share` of what is left of each budget when this replica first counts it."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._books: dict[str, _Book] = {}

    def unknown(self, budgets: Sequence[Budget]) -> list[Budget]:
        """Return those that are not counted yet: `begin` them before they are taken from."""
        return [it for it in budgets if it.key not in self._books]

    def begin(self, budget: Budget, spent: int) -> None:
        """Count a budget, of which that much is spent."""
        if len(self._books) >= MOST_BOOKS:
            self.forget()
        self._books.setdefault(budget.key, _Book(spent))

    def hold(self, budgets: Sequence[Budget], amount: int) -> tuple[int, tuple[State, ...]]:
        """Reserve an amount of all budgets, or of none; return the number of the one that
        refuses, from 1 (0: none does), and how they stand then."""
        books = [self._books[it.key] for it in budgets]
        refused = 0
        for number, (budget, book) in enumerate(zip(budgets, books, strict=True), start=1):
            mine = int((budget.limit - book.base) * self._share)
            if not refused and book.spent + book.held + amount > mine:
                refused = number
        if not refused:
            for book in books:
                book.held += amount
        return refused, tuple(State(it.base + it.spent, it.held) for it in books)

    def settle(self, budgets: Sequence[Budget], reserved: int, spent: int) -> None:
        """Give a reservation back, and add what was spent."""
        for budget in budgets:
            book = self._books.get(budget.key)
            if book is not None:
                book.held -= reserved
                book.spent += spent

    def forget(self) -> None:
        """Count nothing for oneself any more: all replicas count together again."""
        self._books = {key: it for key, it in self._books.items() if it.held}
