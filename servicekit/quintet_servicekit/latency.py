"""How long the last calls took."""

from __future__ import annotations

import math
from collections import deque


class Latency:
    """A quantile of the last calls' seconds, in constant space: `share` of the last `calls`
    took no longer."""

    def __init__(self, *, calls: int, share: float) -> None:
        self._share = share
        self._seconds: deque[float] = deque(maxlen=calls)
        self.quantile = 0.0

    def __len__(self) -> int:
        """Return how many calls it is taken over."""
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Take in a call."""
        self._seconds.append(seconds)
        ordered = sorted(self._seconds)
        self.quantile = ordered[math.ceil(self._share * len(ordered)) - 1]
