"""A tier's counts, in the process's metrics and, for each tenant apart, for its `stats`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import Counter as Metric

from quintet_servicekit.cache import metrics
from quintet_servicekit.tenant_map import TenantMap

MAX_TENANTS = 1_000
"""Tenants whose counts are kept, the latest; another's begin anew. The metrics are of all."""

Outcome = Literal["hit", "stale", "negative", "shared", "miss"]


@dataclass
class _Counts:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    errors: int = 0


class Tally:
    """Counts look-ups and errors of one tier."""

    def __init__(self, tier: str) -> None:
        self._tier = tier
        self._lookups: dict[tuple[Outcome, str], Metric] = {}
        self._counts: TenantMap[_Counts] = TenantMap(MAX_TENANTS)

    def counts(self) -> tuple[Counter[Outcome], int]:
        """Return the present tenant's look-ups by outcome, and its errors."""
        counts = self._own()
        return counts.outcomes, counts.errors

    def looked_up(self, outcome: Outcome, store: str | None) -> None:
        """Count a look-up that ended so; `store` None for none."""
        self._own().outcomes[outcome] += 1
        place = store or "none"
        # A child is looked up once: `labels` costs more than the increment.
        metric = self._lookups.get((outcome, place))
        if metric is None:
            metric = metrics.LOOKUPS.labels(self._tier, outcome, place)
            self._lookups[outcome, place] = metric
        metric.inc()

    def failed(self, kind: str) -> None:
        """Count an error."""
        self._own().errors += 1
        metrics.ERRORS.labels(self._tier, kind).inc()

    def _own(self) -> _Counts:
        counts = self._counts.get("")
        if counts is None:
            counts = _Counts()
            self._counts.put("", counts)
        return counts
