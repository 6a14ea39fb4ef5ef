"""A token bucket in exact arithmetic, as limits are meant to behave."""

from __future__ import annotations

from fractions import Fraction


class Bucket:
    """`limit` units at once, and as many again in every `seconds`."""

    def __init__(self, limit: int, seconds: int) -> None:
        self.limit, self.rate = limit, Fraction(limit, seconds)
        self.there, self.at = Fraction(limit), Fraction(0)

    def flow(self, now: Fraction) -> None:
        """Let time go on to `now`."""
        self.there = min(Fraction(self.limit), self.there + (now - self.at) * self.rate)
        self.at = now

    def has(self, cost: int) -> bool:
        """Whether as many units are there; of more than its limit, whether it is full."""
        return self.there >= min(cost, self.limit)

    def give(self, cost: int, *, force: bool = False) -> None:
        """Give units away; by `force` also what is not there."""
        self.there = min(
            Fraction(self.limit), self.there - (cost if force else min(cost, self.limit))
        )
