"""Budgets of money: what a tenant may spend in a day or a month, in UTC.

A budget is a sum that only grows and a bound, and so no token bucket: what a call may cost at
most is reserved, and what it cost is added.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Period = Literal["day", "month"]
NANOS_A_MICRO = 1_000


class BudgetPolicy(BaseModel):
    """What a tenant may spend, in micro-units (1e-6) of the price table's currency, and what
    is done with what it asks beyond. What is left out is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: int | None = Field(None, ge=1, le=10**12)
    month: int | None = Field(None, ge=1, le=10**12)
    warn_at: float = Field(0.8, gt=0, le=1)
    then: Literal["refuse", "cheap"] = "refuse"

    def on(self, tenant: str, day: date) -> tuple[Budget, ...]:
        """Return a tenant's budgets on a day."""
        limits: tuple[tuple[Period, int | None], ...] = (("day", self.day), ("month", self.month))
        return tuple(
            Budget(tenant, period, *_span(period, day), limit * NANOS_A_MICRO, self.warn_at)
            for period, limit in limits
            if limit is not None
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """A tenant's budget in one period, from the day `first` to the one before `end`: `limit`
    nano-units. From the share `warn_at` on callers are told."""

    tenant: str
    period: Period
    first: date
    end: date
    limit: int
    warn_at: float

    @property
    def key(self) -> str:
        """What tells it apart from all others."""
        return f"budgets:{self.tenant}:{self.period}:{self.first}"

    @property
    def name(self) -> str:
        """What callers are told."""
        return f"tenant {self.period}"

    @property
    def ends_in(self) -> float:
        """Seconds to its period's end; at least one."""
        end = datetime.combine(self.end, time(), UTC)
        return max(1.0, (end - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, slots=True)
class State:
    """What is spent of a budget, and held by calls under way, in nano-units."""

    spent: int
    held: int = 0


def _span(period: Period, day: date) -> tuple[date, date]:
    if period == "day":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, first + timedelta(days=calendar.monthrange(day.year, day.month)[1])
