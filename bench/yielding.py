"""What questions wait beside bulk ingests, with all that makes bulk yield and without it.

Two stacks run at once, of which one has nothing to do: as it is by default, and with bulk's
share of every server and its line lifted, and passages computed on all cores. In turn,
questions that do not wait for each other are asked of each beside two streams of documents.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc

from bench.corpus import documents, questions
from bench.figures import Figure, alone, compared
from bench.ingest import ingest
from bench.overload import FEW_TRACES
from bench.run import NO_CACHES, Run
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import OPEN, SERVICES, running_stack

UNYIELDING = {
    "QUINTET_EMBEDDER_PASSAGES_BESIDE_QUERIES": "0",
    **{
        f"QUINTET_{service.upper()}_ADMISSION__{setting}": value
        for service in SERVICES
        for setting, value in (("BULK_SHARE", "1"), ("BULK_CALLS", "4096"))
    },
}
"""Environment of services in which bulk calls are like others."""
ASKED, BULK = "asked", "bulk"
RATE = 20.0
"""Questions a second: few enough that all find a place."""
STREAMS = 2
WARM_SECONDS = 1.5
"""How long an ingest is under way before questions are asked beside it."""
YIELDING, OTHER = "as it is", "without yielding"
VARIANTS: dict[str, dict[str, str]] = {YIELDING: {}, OTHER: UNYIELDING}
"""Environment of each stack by what is said of it."""


class Side:
    """One stack: questions of it, and what an ingest into it gets done meanwhile."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._numbers = itertools.count()
        self._texts = list(documents(300_000).values())
        self._chunks = 0
        self.rates: list[float] = []

    async def quiet(self, seconds: float) -> list[float]:
        """Return the milliseconds of each of the questions of `seconds`."""
        known, chance = itertools.cycle(questions(256)), random.Random(1)
        took: list[float] = []
        ends = time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            while time.perf_counter() < ends:
                group.create_task(self._ask(f"{next(known)} ({next(self._numbers)})", took))
                await asyncio.sleep(chance.expovariate(RATE))
        return took

    async def beside(self, seconds: float) -> list[float]:
        """Return the same beside an ingest, and note its rate."""
        streams = [asyncio.create_task(self._ingest()) for _ in range(STREAMS)]
        try:
            await asyncio.sleep(WARM_SECONDS)
            before, began = self._chunks, time.perf_counter()
            took = await self.quiet(seconds)
            self.rates.append((self._chunks - before) / (time.perf_counter() - began))
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.wait(streams)
        return took

    async def _ask(self, question: str, took: list[float]) -> None:
        request = pb.AskRequest(collection=ASKED, question=question, model="extractive")
        began = time.perf_counter()
        await self._stub.Ask(request, timeout=30)
        took.append((time.perf_counter() - began) * 1000)

    async def _ingest(self) -> None:
        async for response in self._stub.Ingest(self._documents()):
            self._chunks += response.ingested.chunks

    async def _documents(self) -> AsyncIterator[pb.IngestRequest]:
        for text in itertools.cycle(self._texts):
            number = next(self._numbers)
            # Of some ten chunks each, so that a few seconds see many acknowledged.
            document = pb.Document(id=str(number), content=f"{number}. {text[:5_000]}")
            yield pb.IngestRequest(collection=BULK, document=document)


async def bench(run: Run) -> list[Figure]:
    """Measure milliseconds, and chunks a second beside them."""
    async with AsyncExitStack() as resources:
        names = [YIELDING] if run.quick else [*VARIANTS]
        return await _measured(run, {it: await _side(run, resources, it) for it in names})


async def _side(run: Run, resources: AsyncExitStack, name: str) -> Side:
    if run.quick:
        stack = await resources.enter_async_context(run.stack())
    else:
        run.say(f"the five services, {name}: starting")
        environment = NO_CACHES | FEW_TRACES | OPEN | VARIANTS[name]
        folder = run.folder / name.replace(" ", "-")
        stack = await resources.enter_async_context(running_stack(folder, environment=environment))
    await ingest(stack, documents(run.size(100_000, 3_000)), ASKED)
    channel = await resources.enter_async_context(grpc.aio.insecure_channel(stack.gateway))
    stub: Any = GatewayServiceStub(channel)
    await stub.CreateCollection(pb.CreateCollectionRequest(name=BULK))
    return Side(stub)


async def _measured(run: Run, sides: dict[str, Side]) -> list[Figure]:
    seconds = run.size(50, 5) / 10
    for side in sides.values():
        await side.quiet(seconds / 5)
    quiet: list[list[float]] = []
    beside: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(run.rounds):
        run.say(f"round {number + 1} of {run.rounds}")
        quiet.append(await sides[YIELDING].quiet(seconds))
        for name in sides if number % 2 == 0 else reversed(sides):
            beside[name].append(await sides[name].beside(seconds))
    figures = []
    for share, goal in ((50, None), (90, 0.9), (99, None)):
        found = {name: _quantiles(rounds, share) for name, rounds in beside.items()}
        name = f"yielding: p{share} of a question"
        figures += [
            alone(f"{name}, nothing beside it", "ms", _quantiles(quiet, share)),
            compared(
                f"{name} beside an ingest",
                "ms",
                found[YIELDING],
                OTHER,
                found.get(OTHER),
                at_most=goal,
            ),
        ]
    rates = {name: side.rates for name, side in sides.items()}
    name = "yielding: ingest beside questions"
    return [*figures, compared(name, "chunks/s", rates[YIELDING], OTHER, rates.get(OTHER))]


def _quantiles(rounds: list[list[float]], share: int) -> list[float]:
    """Return of each round what that share in a hundred of its questions took at most."""
    return [statistics.quantiles(it, n=100, method="inclusive")[share - 1] for it in rounds]
