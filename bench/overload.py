"""More questions than can be answered: how many are, in time, and how long they take.

Callers who do not wait for each other ask new questions, each with a deadline, at half to
ten times the rate that 16 callers reach who do. They run on the same cores as the services,
so what is offered costs a part of what it is held against; how much is a figure of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bench.corpus import documents
from bench.figures import Figure, alone, compared
from bench.ingest import ingest
from bench.machine import processor_seconds
from bench.run import NO_CACHES, Run
from bench.workers.open_loop import Call
from quintet_local.supervisor import OPEN, SERVICES, Stack, running_stack

COLLECTION = "reference"
DEADLINE = 0.8
LOADS = (0.5, 1.0, 2.0, 3.0, 10.0)
"""Times the capacity. Ten times is the last, and followed by half for the recovery."""
Ask = Callable[..., Awaitable[list[Call]]]
"""Asks as the worker `open_loop` does."""
FEW_TRACES = {f"QUINTET_{service.upper()}_TRACE_RATIO": "0.01" for service in SERVICES}
"""What takes the traces in runs beside the callers, and would be measured."""


async def bench(run: Run) -> list[Figure]:
    """Measure new questions without caches, and repeated ones with them."""
    if run.quick:
        async with run.stack() as stack:
            return await _measured(run, stack, "overload: new questions", distinct=True)
    found: list[Figure] = []
    for name, environment, distinct in (
        ("overload: new questions", NO_CACHES | FEW_TRACES, True),
        ("overload: repeated questions", FEW_TRACES, False),
    ):
        run.say(f"{name}: the five services: starting")
        folder = run.folder / ("new" if distinct else "repeated")
        async with running_stack(folder, environment=environment | OPEN) as stack:
            found += await _measured(run, stack, name, distinct=distinct)
    return found


async def _measured(run: Run, stack: Stack, name: str, *, distinct: bool) -> list[Figure]:
    await ingest(stack, documents(run.size(150_000, 3_000)), COLLECTION)
    async with run.worker("open_loop", stack.gateway, COLLECTION) as load:
        seconds = run.size(8, 1)
        ask = partial(load, distinct=distinct, seconds=seconds)
        await ask(callers=4, deadline=30.0)
        return await _at_loads(run, ask, load.pid, name, seconds)


async def _at_loads(run: Run, ask: Ask, callers: int, name: str, seconds: int) -> list[Figure]:
    capacities: list[float] = []
    good: dict[float, list[float]] = {load: [] for load in LOADS}
    whole: dict[float, list[float]] = {load: [] for load in LOADS}
    slowest: dict[float, list[float]] = {load: [] for load in LOADS}
    asking: dict[float, list[float]] = {load: [] for load in LOADS}
    recoveries: list[float] = []
    for number in range(run.rounds):
        run.say(f"{name}: round {number + 1} of {run.rounds}")
        capacity = len(in_time(await ask(callers=16, deadline=30.0), 30.0)) / seconds
        capacities.append(capacity)
        for load in LOADS:
            spent, began = processor_seconds(callers), time.perf_counter()
            calls = await ask(rate=load * capacity, deadline=DEADLINE)
            spent = processor_seconds(callers) - spent
            asking[load].append(100 * spent / (time.perf_counter() - began) / run.cores)
            answers = in_time(calls, DEADLINE)
            good[load].append(len(answers) / seconds)
            whole[load].append(sum(outcome == "good" for _, _, outcome in answers) / seconds)
            slowest[load].append(p99(calls) * 1000)
        after = await ask(rate=LOADS[0] * capacity, deadline=DEADLINE)
        recoveries.append(recovered_after(after))
    peaks = [max(rounds) for rounds in zip(*good.values(), strict=True)]
    figures = [alone(f"{name}, answers by 16 callers in turn", "asks/s", capacities)]
    for load in LOADS:
        at = f"{name}, {load:g} × capacity"
        at_least = {3.0: 0.9, 10.0: 0.7}.get(load)
        figures += [
            compared(
                f"{at}: answers within {DEADLINE:g} s",
                "asks/s",
                good[load],
                "the most at any load",
                peaks,
                at_least=at_least,
            ),
            alone(f"{at}: of those not degraded", "asks/s", whole[load]),
            alone(f"{at}: of the cores, the callers themselves", "%", asking[load]),
            alone(
                f"{at}: p99 of what was answered",
                "ms",
                slowest[load],
                at_most=DEADLINE * 1000 if load == 3.0 else None,
            ),
        ]
    figures.append(
        alone(f"{name}, last failure after 10 × has ended", "s", recoveries, at_most=5.0)
    )
    return figures


def in_time(calls: Sequence[Call], deadline: float) -> list[Call]:
    """Return the calls that were answered, whole or degraded, within their deadline."""
    return [it for it in calls if it[2] in ("good", "degraded") and it[1] <= deadline]


def p99(calls: Sequence[Call]) -> float:
    """Return the seconds within which 99 of 100 answers came."""
    waits = [seconds for _, seconds, outcome in calls if outcome in ("good", "degraded")]
    return statistics.quantiles(waits, n=100, method="inclusive")[98] if len(waits) > 1 else 0.0


def recovered_after(calls: Sequence[Call]) -> float:
    """Return when the last question was asked that was not answered whole and in time."""
    return max((at for at, took, how in calls if how != "good" or took > DEADLINE), default=0.0)
