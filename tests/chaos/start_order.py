"""Start order: the five services, PostgreSQL and Valkey start in any order.

Required: no process ends, none is ready before what it needs is, each is within five
seconds after, and then nothing is degraded.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.gateway import gateway_stub, new_collection

from chaos.report import Check
from chaos.suite import Options, Suite, Tell
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_local.postgres import Postgres
from quintet_local.process import Program
from quintet_local.service import Service
from quintet_local.settings import LocalSettings
from quintet_local.valkey import Valkey

NEEDS = {
    "tokenizer": set[str](),
    "embedder": set[str](),
    "generator": set[str](),
    "retriever": {"postgres"},
    "gateway": {"tokenizer", "embedder", "retriever", "generator"},
}
"""What each must not be ready without. Redis, on which all have their caches, is no part
of it."""
RECOVERY = 5.0
"""Seconds within which a service is ready once all that it needs is."""


class Parts:
    """The five services, PostgreSQL and Valkey, each started when a test says so."""

    def __init__(self, programs: dict[str, Program], resources: AsyncExitStack) -> None:
        self._programs = programs
        self._resources = resources
        self.starting: dict[str, asyncio.Task[Process]] = {}
        self.started_at: dict[str, float] = {}
        self.ready_at: dict[str, float] = {}

    def start(self, name: str) -> None:
        """Start a part; its task ends when it is ready, and fails if its process ends."""
        self.started_at[name] = time.monotonic()
        self.starting[name] = asyncio.create_task(self._start(name))

    async def _start(self, name: str) -> Process:
        process = await self._programs[name].start()
        self._resources.push_async_callback(self._programs[name].stop, process)
        self.ready_at[name] = time.monotonic()
        for needed in NEEDS.get(name, ()):
            assert needed in self.ready_at, f"{name} was ready before {needed}"
        return process

    async def all_ready(self) -> None:
        """Wait until all that were started are ready."""
        async with asyncio.timeout(100):
            await asyncio.gather(*self.starting.values())

    async def end(self) -> None:
        """Wait for what is still starting: it is ended by its own program."""
        for task in self.starting.values():
            task.cancel()
        await asyncio.gather(*self.starting.values(), return_exceptions=True)

    def address(self, name: str) -> str:
        """Return a service's address."""
        service = self._programs[name]
        assert isinstance(service, Service)
        return service.address


@asynccontextmanager
async def parts(folder: Path) -> AsyncIterator[Parts]:
    """Yield the parts, none of them running; each knows where the others will be."""
    postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
    # Once before, so that their addresses are known.
    for server in (postgres, valkey):
        await server.stop(await server.start())
    environment = dict(os.environ) | {
        **postgres.variables("retriever"),
        # Long, so that it is not what makes the gateway ready.
        "QUINTET_GATEWAY_START_SECONDS": "600",
    }
    async with AsyncExitStack() as resources:
        programs: dict[str, Program] = {"postgres": postgres, "valkey": valkey}
        for name in NEEDS:
            environment[f"QUINTET_{name.upper()}_CACHE__REDIS_URL"] = valkey.url
            service = Service(
                name,
                environment,
                log_file=folder / f"{name}.log",
                settings=LocalSettings(),
            )
            resources.callback(service.close)
            programs[name] = service
            environment[f"QUINTET_GATEWAY_{name.upper()}_ADDRESS"] = service.address
        it = Parts(programs, resources)
        resources.push_async_callback(it.end)
        yield it


async def serves(address: str) -> bool:
    """Whether a service, which answers, says that it is ready."""
    async with grpc.aio.insecure_channel(address) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60
        )
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def answers(address: str) -> None:
    """Bring a document in and ask about it; nothing may be degraded."""
    async with gateway_stub(address) as stub:
        document = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
        async with new_collection(stub, [document]) as name:
            request = pb.AskRequest(collection=name, question="What do bees make?")
            answer = await stub.Ask(request, timeout=30)
            assert answer.answer
            assert not answer.degradations


async def start_in(order: Sequence[str], rng: random.Random) -> float:
    """Start everything in that order with pauses of up to a second; return the longest
    time from when a service was started, and all that it needs was ready, until it was."""
    with tempfile.TemporaryDirectory(prefix="quintet-order-") as folder:
        async with parts(Path(folder)) as it:
            for name in order:
                it.start(name)
                await asyncio.sleep(rng.uniform(0, 1))
            await it.all_ready()
            await answers(it.address("gateway"))
            return max(
                it.ready_at[name]
                - max(it.started_at[name], *(it.ready_at[needed] for needed in NEEDS[name]))
                for name in ("retriever", "gateway")
            )


def _run(options: Options, tell: Tell) -> Sequence[Check]:
    rng = random.Random(options.seed)
    slowest = 0.0
    for number in range(options.amount):
        order = [*NEEDS, "postgres", "valkey"]
        rng.shuffle(order)
        tell(number, " ".join(order))
        slowest = max(slowest, asyncio.run(start_in(order, rng)))
    tell(options.amount, "")
    return [
        Check("orders in which all started", options.amount),
        Check(
            "seconds until the slowest was ready, once it could be",
            round(slowest, 2),
            f"at most {RECOVERY}",
            slowest <= RECOVERY,
        ),
    ]


SUITE = Suite("start-order", 6, "orders", _run)
