"""What is done to the processes while they are called, and when."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from chaos.replicas import GATEWAY, RETRIEVER, SECOND, VALKEY, Replicas

GRACE_SECONDS = 10.0
"""How long after a fault calls may still fail: connections are made anew, and two cores
load a service for seconds."""
LEAST = 9
"""Faults of a short run: each once."""
EVERY = 150
"""Operations between two faults of a long run."""


What = Literal["kill", "freeze", "cut"]
"""A server of which followers are cut off goes on for all others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a process after so many operations of the run."""

    after: int
    what: What
    process: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} {self.process}"


def plan(operations: int, rng: random.Random) -> list[Fault]:
    """Return the faults of a run in their order: each kind as often, at random moments."""
    kinds: list[tuple[What, str]] = [
        ("kill", RETRIEVER),
        ("kill", VALKEY),
        ("kill", GATEWAY),
        ("kill", SECOND),
        ("freeze", VALKEY),
        ("freeze", SECOND),
        ("freeze", GATEWAY),
        ("freeze", RETRIEVER),
        ("cut", VALKEY),
    ]
    number = max(LEAST, operations // EVERY)
    found = []
    for place, (what, process) in enumerate(islice(cycle(kinds), number)):
        # The first and the last part of a run are undisturbed.
        at = (place + rng.uniform(0.5, 1.5)) / (number + 2)
        found.append((what, process, at, rng.uniform(0.2, 3.0)))
    moments = sorted(at for _, _, at, _ in found)
    rng.shuffle(found)
    return [
        Fault(int(operations * at), what, process, seconds)
        for at, (what, process, _, seconds) in zip(moments, found, strict=True)
    ]


class Faults:
    """The faults of a run, and when they were. Two may be at once, of different processes."""

    def __init__(self, planned: list[Fault]) -> None:
        self._planned = planned
        self.happened: list[tuple[Fault, float, float]] = []
        """Faults that are over, with when they began and ended, monotonic."""
        self._under_way: dict[Fault, float] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def inject(self, replicas: Replicas, reached: Callable[[int], Awaitable[None]]) -> None:
        """Do all that is planned; `reached` waits for a number of operations."""
        async with asyncio.TaskGroup() as group:
            for fault in self._planned:
                await reached(fault.after)
                group.create_task(self._do(fault, replicas))

    async def _do(self, fault: Fault, replicas: Replicas) -> None:
        async with self._turns[fault.process]:
            self._under_way[fault] = began = time.monotonic()
            if fault.what == "kill":
                await replicas.kill(fault.process)
            elif fault.what == "cut":
                await replicas.cut_followers()
            else:
                await replicas.freeze(fault.process, fault.seconds)
            self.happened.append((fault, began, time.monotonic()))
            del self._under_way[fault]

    def excuse(self, began: float, ended: float) -> bool:
        """Whether a call that was made from then to then may have failed."""
        return any(since <= ended for since in self._under_way.values()) or any(
            since <= ended and began <= until + GRACE_SECONDS for _, since, until in self.happened
        )

    def around(self, began: float, ended: float) -> list[str]:
        """Return the faults of some time, for people."""
        return [
            f"{since:.3f} to {until:.3f} {fault}"
            for fault, since, until in self.happened
            if since <= ended + 1 and began <= until + GRACE_SECONDS
        ] + [f"since {since:.3f} {fault}" for fault, since in self._under_way.items()]
