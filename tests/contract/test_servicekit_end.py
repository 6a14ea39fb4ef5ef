"""How a service ends: health first, then its calls, then the process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.scripted_service import SERVICE, scripted_process

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet_servicekit.errors import Reason, from_rpc_error

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = "600"
"""Seconds that no test waits for."""


class Scripted:
    """A process that serves, and its only caller."""

    def __init__(self, process: subprocess.Popen[bytes], channel: grpc.aio.Channel) -> None:
        self.process = process
        self.stub: Any = GeneratorServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    def watch(self) -> Any:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        return self._health.Watch(request, wait_for_ready=True)

    async def until_serving(self) -> None:
        watch = self.watch()
        while (await watch.read()).status != SERVING:
            pass
        watch.cancel()

    def call(self, seconds: str) -> Any:
        return self.stub.Generate(pb.GenerateRequest(question=seconds))

    async def stream(self, seconds: str) -> Any:
        stream = self.stub.GenerateStream(pb.GenerateRequest(question=seconds))
        assert (await stream.read()).text_delta.text == "begun"
        return stream

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 60)


@asynccontextmanager
async def scripted(**settings: float) -> AsyncIterator[Scripted]:
    with scripted_process(**settings) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            it = Scripted(process, channel)
            await it.until_serving()
            yield it


async def test_a_call_and_a_stream_in_flight_finish_and_the_status_is_0() -> None:
    async with scripted(lame_duck_seconds=0, drain_seconds=60) as it:
        call, stream = it.call("1.5"), await it.stream("1.5")
        it.terminate()
        assert (await call).text == "done"
        assert (await stream.read()).text_delta.text == "done"
        assert await stream.code() is grpc.StatusCode.OK
        assert await it.ended() == 0


async def test_what_is_still_running_after_the_drain_is_told_that_the_service_stops() -> None:
    async with scripted(lame_duck_seconds=0, drain_seconds=0.5) as it:
        call, stream = it.call(LONG), await it.stream(LONG)
        it.terminate()
        for waiting in (call, stream.read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await waiting
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            error = from_rpc_error(caught.value, service="generator")
            assert error.reason is Reason.NOT_READY
            assert error.retry_after is not None
        assert await it.ended() == 0


async def test_health_says_so_first_and_calls_are_still_taken_for_a_while() -> None:
    async with scripted(lame_duck_seconds=3, drain_seconds=60) as it:
        watch = it.watch()
        assert (await watch.read()).status == SERVING
        it.terminate()
        assert (await watch.read()).status == NOT_SERVING
        assert (await it.call("0")).text == "done"
        assert await it.ended() == 0


async def test_who_watches_health_does_not_hold_the_end_up() -> None:
    async with scripted(lame_duck_seconds=0.1, drain_seconds=60) as it:
        watch = it.watch()
        assert (await watch.read()).status == SERVING
        began = time.monotonic()
        it.terminate()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        assert await it.ended() == 0
        assert time.monotonic() - began < 30


async def test_a_second_signal_ends_the_process_at_once() -> None:
    async with scripted(lame_duck_seconds=60, drain_seconds=60) as it:
        watch = it.watch()
        assert (await watch.read()).status == SERVING
        it.terminate()
        assert (await watch.read()).status == NOT_SERVING
        it.terminate()
        assert await it.ended() == -signal.SIGTERM
