"""Algorithms for a limit of concurrency, side by side on a simulated server.

    python -m bench.limit_algorithms

Vegas and Gradient2 are those of Netflix's concurrency-limits with their defaults, but for the
upper bound, which all share. docs/adr/0010 has what came out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bench.simulated_server import Arrival, Limit, Outcome, poisson, serve
from quintet_servicekit.limiter import AdaptiveLimit

MOST = 512
CAPACITY = 76.0
"""Calls of 25 ms, and a few longer ones, that two cores do a second."""


class Estimate(Protocol):
    """An algorithm as the library has it: it is told of each call as it ends."""

    limit: float

    def update(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Take in a call, which was begun as one of `in_flight`."""


class Fixed:
    """No limit."""

    limit = math.inf

    def update(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Change nothing."""


class Vegas:
    """`VegasLimit`: the least duration is that of a call that did not wait."""

    def __init__(self) -> None:
        self.limit = 20.0
        self._alone = math.inf
        self._calls = 0
        self._chance = random.Random(1)

    def update(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Take in a call."""
        self._calls += 1
        if self._calls > 30 * self.limit * self._chance.uniform(0.5, 1.0):
            self._calls, self._alone = 0, seconds
        if seconds <= self._alone:
            self._alone = seconds
            return
        queue = math.ceil(self.limit * (1 - self._alone / seconds))
        step = max(1, int(math.log10(self.limit)))
        if dropped or queue > 6 * step:
            self.limit -= step
        elif 2 * in_flight < self.limit:
            return
        elif queue <= step:
            self.limit += 6 * step
        elif queue < 3 * step:
            self.limit += step
        self.limit = min(max(self.limit, 1.0), MOST)


class Gradient2:
    """`Gradient2Limit`: durations now against their mean over 600 calls."""

    def __init__(self) -> None:
        self.limit = 20.0
        self._first: list[float] = []
        self._long = 0.0

    def update(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Take in a call."""
        if len(self._first) < 10:
            self._first.append(seconds)
            self._long = sum(self._first) / len(self._first)
        else:
            self._long += (seconds - self._long) * 2 / 601
        if self._long / seconds > 2:
            self._long *= 0.95
        if 2 * in_flight < self.limit:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long / seconds))
        wanted = self.limit * gradient + 4
        self.limit = min(max(0.8 * self.limit + 0.2 * wanted, 20.0), MOST)


class Tried:
    """An algorithm of the library as the simulated server asks for it."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._in_flight = 0

    @property
    def is_reached(self) -> bool:
        """Whether no call may begin."""
        return self._in_flight >= self._estimate.limit

    def begin(self) -> int:
        """Note that a call begins."""
        self._in_flight += 1
        return self._in_flight

    def end(self) -> None:
        """Note that a call has ended."""
        self._in_flight -= 1

    def sample(self, *, began_at: float, now: float, wait: float, beside: int) -> None:
        """Take in a call."""
        self._estimate.update(now - began_at, beside, dropped=wait >= 2.0)


ALGORITHMS: Mapping[str, Callable[[], Limit]] = {
    "none": lambda: Tried(Fixed()),
    "Vegas": lambda: Tried(Vegas()),
    "Gradient2": lambda: Tried(Gradient2()),
    "ours": lambda: AdaptiveLimit(least=16, most=MOST),
}


def computed(chance: random.Random) -> float:
    """Return the work of a question."""
    return chance.lognormvariate(math.log(0.025), 0.3)


def hit_or_model(chance: random.Random) -> float:
    """Return the work of a kept answer or, once in five times, of a language model's."""
    return 0.001 if chance.random() < 0.8 else chance.uniform(1.0, 2.0)


def _asked(load: float, since: float, until: float, deadline: float = 0.8) -> list[Arrival]:
    seed = int(since) + 1
    return poisson(load * CAPACITY, since, until, work=computed, deadline=deadline, seed=seed)


def scenarios() -> Mapping[str, tuple[Sequence[Arrival], float, float]]:
    """Return by name the calls, and the time over which they are counted."""
    steady = {
        f"{load:g} × capacity": (_asked(load, 0, 40), 10.0, 40.0)
        for load in (0.5, 0.9, 1.0, 2.0, 3.0, 10.0)
    }
    mixed = poisson(6.0, 0, 300, work=hit_or_model, deadline=20.0)
    burst = [Arrival(30 + number / 1e4, 0.025, 30.0) for number in range(100)]
    return steady | {
        "3 ×, the first five seconds": (_asked(3.0, 0, 5), 0.0, 5.0),
        "0.5 ×, five seconds after 10 ×": (
            [*_asked(10.0, 0, 10), *_asked(0.5, 10, 20)],
            10.0,
            15.0,
        ),
        "hits, and a model's answers, 0.9 ×": (mixed, 60.0, 300.0),
        "a burst of 100 in calm, after 3 ×": (
            [*_asked(3.0, 0, 10), *_asked(0.2, 10, 30), *burst],
            30.0,
            31.0,
        ),
    }


def _row(outcome: Outcome, since: float, until: float) -> str:
    waits = sorted(wait for at, wait in outcome.good if since <= at < until)
    p99 = f"{waits[int(0.99 * len(waits))]:.2f}" if waits else "-"
    refused, late = (
        sum(since <= at < until for at in them) / (until - since)
        for them in (outcome.refused, outcome.late)
    )
    good = outcome.goodput(since, until)
    return f"{good:6.1f}/s good {refused:6.1f}/s refused {late:6.1f}/s late, p99 {p99} deadlines"


def main() -> None:
    """Print each algorithm's outcome in each scenario."""
    for name, (arrivals, since, until) in scenarios().items():
        print(name)
        for algorithm, make in ALGORITHMS.items():
            print(f"  {algorithm:10}", _row(serve(arrivals, make()), since, until))


if __name__ == "__main__":
    main()
