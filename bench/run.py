"""What a bench is given: how much to measure, the services to measure, and rounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import shown
from bench.worker import Worker, running_worker
from quintet_local.service import Service
from quintet_local.settings import LocalSettings
from quintet_local.supervisor import OPEN, SERVICES, Stack, running_stack

Contender = Callable[[], Awaitable[float]]
"""Does its work once and returns what it measured."""

NO_CACHES = {
    f"QUINTET_{service.upper()}_CACHE__{setting}": value
    for service in SERVICES
    for setting, value in (("MEMORY_BYTES", "0"), ("REDIS_URL", ""))
}
"""What is compared does all of its work each time, and so do we."""


@dataclass(frozen=True)
class Run:
    """One run of a bench, or a quick one of several. `folder` is for logs and state and
    goes at the end, as does what `resources` holds; `say` shows people what is done."""

    folder: Path
    quick: bool
    peers: bool
    say: Callable[[str], None]
    resources: AsyncExitStack
    _shared: list[Stack] = field(default_factory=list)
    _cached: list[Stack] = field(default_factory=list)
    _workers: dict[tuple[str, ...], Worker] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How often each contender has its turn."""
        return 1 if self.quick else 5

    @property
    def cores(self) -> int:
        """Cores that we may use: every engine that is compared gets as many threads."""
        return len(os.sched_getaffinity(0))

    def size(self, whole: int, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else whole

    async def interleaved(
        self, contenders: Mapping[str, Contender], *, warm_up: bool = True
    ) -> dict[str, list[float]]:
        """Give each contender its turn in every round; return their samples by name.

        The first turn of each does not count. In every other round the order is
        turned around, so that nobody always follows the same one.
        """
        if warm_up and not self.quick:
            for name, contender in contenders.items():
                self.say(f"{name}: warming up")
                await contender()
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(self.rounds):
            order = list(contenders)
            for name in order if number % 2 == 0 else reversed(order):
                self.say(f"{name}: round {number + 1} of {self.rounds}{_last(samples[name])}")
                samples[name].append(await contenders[name]())
        return samples

    @asynccontextmanager
    async def worker(
        self, name: str, *arguments: str, python: Path | None = None
    ) -> AsyncIterator[Worker]:
        """Run a worker that computes on as many threads as we have cores: until the block
        ends, in a quick run until the last bench does."""
        starting = self._worker(name, *arguments, python=python)
        if not self.quick:
            async with starting as worker:
                yield worker
            return
        key = (name, *arguments)
        if key not in self._workers:
            self._workers[key] = await self.resources.enter_async_context(starting)
        yield self._workers[key]

    @asynccontextmanager
    async def _worker(
        self, name: str, *arguments: str, python: Path | None
    ) -> AsyncIterator[Worker]:
        self.say(f"{name}: loading")
        threads = str(self.cores)
        environment = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        async with running_worker(
            name,
            *arguments,
            python=python,
            environment=environment,
            log_file=self.folder / f"{name}.log",
        ) as worker:
            yield worker

    @asynccontextmanager
    async def service(self, name: str, **settings: str) -> AsyncIterator[str]:
        """Run one service alone, as it is by default but for its cache, and for `settings`
        (not in a quick run), and yield its address."""
        if self.quick:
            async with self.stack() as stack:
                yield stack.endpoints[name]["grpc"]
            return
        self.say(f"the {name} service: starting")
        service = Service(
            name,
            {k: v for k, v in os.environ.items() if k != "OTEL_EXPORTER_OTLP_ENDPOINT"}
            | NO_CACHES
            | OPEN
            | settings,
            log_file=self.folder / f"{name}.log",
            settings=LocalSettings(),
        )
        try:
            process = await service.start()
            try:
                yield service.address
            finally:
                await service.stop(process)
        finally:
            service.close()

    @asynccontextmanager
    async def cached_stack(self) -> AsyncIterator[Stack]:
        """Run all of Quintet as `make up` does, with its caches, and yield it, for as long as
        `stack`. One trace in a hundred is recorded: what takes them in runs in this process,
        beside the callers, and would be measured instead of the services."""
        if not self._cached:
            self.say("the five services with their caches: starting")
            few = {f"QUINTET_{service.upper()}_TRACE_RATIO": "0.01" for service in SERVICES}
            running = running_stack(self.folder / "cached", environment=few | OPEN)
            self._cached.append(await self.resources.enter_async_context(running))
        yield self._cached[0]

    @asynccontextmanager
    async def stack(self) -> AsyncIterator[Stack]:
        """Run all of Quintet, as `make up` does but without caches, and yield it: until the
        bench ends, in a quick run until the last one does."""
        if not self._shared:
            self.say("the five services: starting")
            running = running_stack(self.folder / "stack", environment=NO_CACHES | OPEN)
            self._shared.append(await self.resources.enter_async_context(running))
        yield self._shared[0]


def _last(samples: list[float]) -> str:
    return f" (the last: {shown(samples[-1])})" if samples else ""


async def in_turn(
    seconds: float, every: float, once: Callable[[], Awaitable[float]]
) -> list[float]:
    """Return what `once` returned, called every `every` seconds for `seconds`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    found: list[float] = []
    while loop.time() < until:
        began = loop.time()
        found.append(await once())
        await asyncio.sleep(max(0.0, began + every - loop.time()))
    return found
