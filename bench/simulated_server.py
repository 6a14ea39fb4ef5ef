"""A server in simulated time: calls share its cores, and are given up at their deadlines.

What limits of concurrency are compared on, and tested with: minutes of overload take a
second, and each run is the same.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


class Limit(Protocol):
    """What is tried; see `quintet_servicekit.limiter.AdaptiveLimit`."""

    @property
    def is_reached(self) -> bool:
        """Whether no call may begin."""

    def begin(self) -> int:
        """Note that a call begins; return how many are under way with it."""

    def end(self) -> None:
        """Note that a call has ended."""

    def sample(self, *, began_at: float, now: float, wait: float, beside: int) -> None:
        """Take in a call; `wait` is in halves of its deadline."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call: when it comes, the processor time that it needs, and its deadline, all in
    seconds."""

    at: float
    work: float
    deadline: float


@dataclass
class Outcome:
    """What became of calls, each by when it arrived."""

    good: list[tuple[float, float]] = field(default_factory=list)
    """Answered: arrival, and time taken as a share of the deadline."""
    late: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def goodput(self, since: float, until: float) -> float:
        """Return the answers a second to calls that came in that time."""
        return sum(since <= at < until for at, _ in self.good) / (until - since)


def poisson(
    rate: float,
    since: float,
    until: float,
    *,
    work: Callable[[random.Random], float],
    deadline: float,
    seed: int = 1,
) -> list[Arrival]:
    """Return calls that come at random, `rate` a second."""
    chance = random.Random(seed)
    found, now = [], since
    while (now := now + chance.expovariate(rate)) < until:
        found.append(Arrival(now, work(chance), deadline))
    return found


def serve(
    arrivals: Iterable[Arrival], limit: Limit, *, cores: int = 2, refusal: float = 0.0003
) -> Outcome:
    """Serve the calls, all that are admitted sharing the cores evenly; to refuse one takes
    `refusal` seconds of a core, before all else."""
    outcome = Outcome()
    # In the clock of work that each call under way has been given.
    given, now, owed = 0.0, 0.0, 0.0
    finishing: list[tuple[float, int]] = []
    expiring: list[tuple[float, int]] = []
    calls: dict[int, Arrival] = {}
    beside: dict[int, int] = {}
    numbers = itertools.count()

    def run_until(then: float) -> None:
        nonlocal given, now, owed
        while True:
            rate = min(1.0, cores / len(calls)) if calls else 1.0
            while finishing and finishing[0][1] not in calls:
                heapq.heappop(finishing)
            while expiring and expiring[0][1] not in calls:
                heapq.heappop(expiring)
            pause = owed / cores
            done = now + pause + (finishing[0][0] - given) / rate if finishing else then + 1
            expired = expiring[0][0] if expiring else then + 1
            until = min(then, done, expired)
            spent = min(pause, until - now)
            owed -= spent * cores
            given += max(0.0, until - now - spent) * rate
            now = until
            if until == then and until not in (done, expired):
                return
            number = (finishing if done <= expired else expiring)[0][1]
            call = calls.pop(number)
            wait = (now - call.at) / call.deadline
            if done <= expired:
                outcome.good.append((call.at, wait))
            else:
                outcome.late.append(call.at)
            limit.end()
            limit.sample(began_at=call.at, now=now, wait=2 * wait, beside=beside.pop(number))

    for arrival in sorted(arrivals, key=lambda it: it.at):
        run_until(arrival.at)
        if limit.is_reached:
            owed += refusal
            outcome.refused.append(arrival.at)
            continue
        number = next(numbers)
        calls[number] = arrival
        heapq.heappush(finishing, (given + arrival.work, number))
        heapq.heappush(expiring, (arrival.at + arrival.deadline, number))
        beside[number] = limit.begin()
    run_until(now + 3600.0)
    return outcome
