"""How many calls a server works on at once: a limit that follows what callers can wait for.

The algorithm is AIMD (Chiu and Jain, "Analysis of the increase and decrease algorithms for
congestion avoidance", 1989) as `AIMDLimit` of Netflix's concurrency-limits applies it to
servers, with three changes. A call is late by its own caller's deadline, not by one time
for all: answers from a cache and from a language model differ a thousandfold, and no length
in seconds tells of both whether they waited. The decrease is in proportion to how late calls
were, as in DCTCP (Alizadeh et al., 2010). And as in TCP's recovery (RFC 6582) calls that
began before the last decrease do not cause the next, so that one burst is answered once.
docs/adr/0010 has what else was weighed, and figures.

Pure: it reads no clock and knows no call. `admission` applies it.
"""

from __future__ import annotations

import math

SAMPLES = 10
"""Calls, begun since the last change, after which the next is decided."""
LATE_SHARE = 0.1
"""Share of them that is late in overload. One slow call in ten is nobody's queue."""
DECREASE = 0.5
"""Least factor of a decrease, as in TCP."""


class AdaptiveLimit:
    """A limit between `least` and `most`, and the calls under way.

    It begins at `most`, and returns there while nothing is late: it is better to admit too
    many for a second than to refuse what could have been done.
    """

    def __init__(self, *, least: int, most: int) -> None:
        self.in_flight = 0
        self._least = min(least, most)
        self._most = most
        self._limit = float(most)
        self._changed_at = self._lowered_at = -math.inf
        self._waits: list[tuple[float, int]] = []
        self._fresh = 0

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return int(self._limit)

    @property
    def is_reached(self) -> bool:
        """Whether no call may begin."""
        return self.in_flight >= int(self._limit)

    def begin(self) -> int:
        """Note that a call begins; return how many are under way with it."""
        self.in_flight += 1
        return self.in_flight

    def end(self) -> None:
        """Note that a call has ended, whatever way."""
        self.in_flight -= 1

    def sample(self, *, began_at: float, now: float, wait: float, beside: int) -> None:
        """Take in a call that was answered, or given up because it took too long.

        `wait` is the time that it took as a share of the longest that is good: above 1
        it is late. `beside` is what `begin` returned for it. The times are seconds of one
        clock.
        """
        if began_at < self._lowered_at:
            return
        self._waits.append((wait, beside))
        self._fresh += began_at >= self._changed_at
        if self._fresh < SAMPLES:
            return
        self._waits.sort()
        worst, beside = self._waits[-1 - int(LATE_SHARE * len(self._waits))]
        if worst > 1.0:
            # By Little's law calls take as long as there are others beside them. Those
            # were too many that it found, not those that have come since.
            self._limit = min(self._limit, beside) * max(DECREASE, 1.0 / worst)
            self._lowered_at = now
        else:
            self._limit += math.sqrt(self._limit)
        self._limit = min(max(self._limit, self._least), self._most)
        self._changed_at, self._waits, self._fresh = now, [], 0
