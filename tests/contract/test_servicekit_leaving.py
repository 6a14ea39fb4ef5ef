"""What callers leave behind who leave: nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import REGISTRY
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit.breaker import Breaker, State
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.channel import Peer
from quintet_servicekit.errors import ServiceError
from quintet_servicekit.server import Application
from quintet_servicekit.settings import AdmissionSettings, ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"
CALLS = 1_000
AT_ONCE = 50


class Slow(GeneratorServiceServicer):
    """Answers to nobody, or without end; it counts whom it works for."""

    running = 0

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return pb.GenerateResponse()

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncGenerator[pb.GenerateStreamResponse]:
        self.running += 1
        try:
            while True:
                yield pb.GenerateStreamResponse()
        finally:
            self.running -= 1

    async def ListModels(self, request: Any, context: Any) -> Any:
        raise AssertionError


async def nothing() -> None:
    return None


def in_flight() -> float:
    name = "quintet_admission_in_flight"
    return REGISTRY.get_sample_value(name, {"priority": "question"}) or 0.0


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def test_calls_that_were_left_leave_no_task_no_place_and_no_descriptor() -> None:
    servicer, chance = Slow(), random.Random(1)
    application = Application(
        SERVICE,
        lambda server: add_GeneratorServiceServicer_to_server(servicer, server),
        warm_up=nothing,
        check=nothing,
    )
    settings = ServiceSettings(
        drain_seconds=1, probe_interval_seconds=0.05, admission=AdmissionSettings(least_calls=512)
    )
    async with serving(application, settings) as channel:
        stub: Any = GeneratorServiceStub(channel)
        peer = Peer("generator", SERVICE, Breaker("generator", BreakerSettings()))

        async def cancelled() -> None:
            call = asyncio.create_task(
                peer.unary("Generate", stub.Generate, pb.GenerateRequest(), timeout=30)
            )
            await asyncio.sleep(chance.uniform(0, 0.02))
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call

        async def out_of_time() -> None:
            with suppress(ServiceError):
                await peer.unary("Generate", stub.Generate, pb.GenerateRequest(), timeout=0.001)

        async def closed_midway() -> None:
            stream = peer.stream(
                "GenerateStream", stub.GenerateStream, pb.GenerateRequest(), timeout=30
            )
            async with aclosing(stream) as responses:
                async for _ in responses:
                    break

        async def all_of_them(calls: int) -> None:
            for _ in range(calls // AT_ONCE):
                ways = (
                    chance.choice((cancelled, out_of_time, closed_midway)) for _ in range(AT_ONCE)
                )
                await asyncio.gather(*(way() for way in ways))
            await until(lambda: not servicer.running and not in_flight())

        await all_of_them(CALLS)  # what is made once and kept
        tasks, files = len(asyncio.all_tasks()), descriptors()
        await all_of_them(CALLS)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert descriptors() <= files
        assert peer.breaker is not None
        assert peer.breaker.state is State.CLOSED
        with suppress(grpc.aio.AioRpcError):
            await stub.Generate(pb.GenerateRequest(), timeout=-1.0)
        assert in_flight() == 0
