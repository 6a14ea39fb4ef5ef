"""A tier's counts, in the process's metrics and for its own `stats`."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from prometheus_client import Counter as Metric

from quintet_servicekit.cache import metrics

Outcome = Literal["hit", "stale", "negative", "shared", "miss"]


class Tally:
    """Counts look-ups and errors of one tier."""

    def __init__(self, tier: str) -> None:
        self._tier = tier
        self._lookups: dict[tuple[Outcome, str], Metric] = {}
        self.outcomes: Counter[Outcome] = Counter()
        self.errors = 0

    def looked_up(self, outcome: Outcome, store: str | None) -> None:
        """Count a look-up that ended so; `store` None for none."""
        self.outcomes[outcome] += 1
        place = store or "none"
        # A child is looked up once: `labels` costs more than the increment.
        metric = self._lookups.get((outcome, place))
        if metric is None:
            metric = metrics.LOOKUPS.labels(self._tier, outcome, place)
            self._lookups[outcome, place] = metric
        metric.inc()

    def failed(self, kind: str) -> None:
        """Count an error."""
        self.errors += 1
        metrics.ERRORS.labels(self._tier, kind).inc()
