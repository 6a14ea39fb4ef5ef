"""Counts of the calls of the last seconds, and whether they call for opening a breaker;
in constant time and space."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from quintet_servicekit.breaker_policy import BreakerSettings, Outcome

SLICES = 10
"""Parts in which a window slides: a call is forgotten at most a tenth of it early."""


@dataclass(slots=True)
class Counts:
    """Numbers of calls that ended, and of those that failed or were slow among them."""

    calls: int = 0
    failures: int = 0
    slow: int = 0


class RollingWindow:
    """Counts of calls over the last `seconds`; times are on any clock that never goes back."""

    def __init__(self, seconds: float) -> None:
        self._slice_seconds = seconds / SLICES
        self.clear()

    def clear(self) -> None:
        """Forget all calls."""
        self._slices: deque[tuple[int, Counts]] = deque()
        self._sums = Counts()

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a call that ended at `now`."""
        index = self._forget_until(now)
        if not self._slices or self._slices[-1][0] != index:
            self._slices.append((index, Counts()))
        for counts in (self._slices[-1][1], self._sums):
            counts.calls += 1
            counts.failures += failed
            counts.slow += slow

    def counts(self, now: float) -> Counts:
        """Return the counts at `now`; they change with the next call."""
        self._forget_until(now)
        return self._sums

    def _forget_until(self, now: float) -> int:
        index = int(now / self._slice_seconds)
        while self._slices and self._slices[0][0] <= index - SLICES:
            _, old = self._slices.popleft()
            self._sums.calls -= old.calls
            self._sums.failures -= old.failures
            self._sums.slow -= old.slow
        return index


class Tally:
    """The calls made while a breaker is closed."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._window = RollingWindow(settings.window_seconds)
        self._failures_in_a_row = 0
        self._expired_at = -math.inf

    def clear(self) -> None:
        """Forget all calls."""
        self._window.clear()
        self._failures_in_a_row = 0
        self._expired_at = -math.inf

    def counts(self, now: float) -> Counts:
        """Return the counts of the rolling window."""
        return self._window.counts(now)

    def add(self, began: float, now: float, outcome: Outcome, *, slow: bool) -> str | None:
        """Count a call from `began` to `now`, and return why the breaker must open,
        or None where it need not."""
        expired = outcome is Outcome.TIMED_OUT
        failed = expired or outcome is Outcome.FAILED
        self._window.add(now, failed=failed, slow=slow)
        since_expiry = now - self._expired_at
        beside = began < self._expired_at and since_expiry < self._settings.burst_seconds
        if failed and not (expired and beside):
            self._failures_in_a_row += 1
            self._expired_at = now if expired else -math.inf
        elif outcome is Outcome.ANSWERED:
            self._failures_in_a_row = 0
        return self._cause(self._window.counts(now)) if failed or slow else None

    def _cause(self, counts: Counts) -> str | None:
        settings = self._settings
        if self._failures_in_a_row >= settings.consecutive_failures:
            return f"{self._failures_in_a_row} failures in a row"
        if counts.calls < settings.min_calls:
            return None
        if counts.failures >= settings.failure_rate * counts.calls:
            return f"{counts.failures} of {counts.calls} calls failed"
        if counts.slow >= settings.slow_rate * counts.calls:
            return f"{counts.slow} of {counts.calls} calls were slow"
        return None
