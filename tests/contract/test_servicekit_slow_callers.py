"""Callers who send or take nothing, and messages that inflate, hold no call's place."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from support.gateway import reason
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit.server import Application
from quintet_servicekit.settings import ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"
GENERATE = f"/{SERVICE}/Generate"
STREAM = f"/{SERVICE}/GenerateStream"


class Talker(GeneratorServiceServicer):
    """Streams without end; `ended` is set when a stream is closed."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        return pb.GenerateResponse(text=request.question)

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        try:
            while True:
                delta = pb.TextDelta(text="x" * 10_000)
                yield pb.GenerateStreamResponse(text_delta=delta)
        finally:
            self.ended.set()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """A stream that answers each message."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request

        named = details.method == "/test.Echo/Echo"
        return grpc.stream_stream_rpc_method_handler(echo) if named else None


async def nothing() -> None:
    return None


@asynccontextmanager
async def talking(**settings: Any) -> AsyncIterator[tuple[Any, Talker]]:
    talker = Talker()

    def register(server: grpc.aio.Server) -> None:
        add_GeneratorServiceServicer_to_server(talker, server)
        server.add_generic_rpc_handlers((Echo(),))

    application = Application(SERVICE, register, warm_up=nothing, check=nothing)
    own = ServiceSettings(
        lame_duck_seconds=0, drain_seconds=1, probe_interval_seconds=0.05, **settings
    )
    async with serving(application, own) as channel:
        yield channel, talker


async def ending(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call
    return ended.value.code(), reason(ended.value)


async def test_a_call_whose_request_never_comes_is_ended() -> None:
    async with talking(first_request_seconds=0.2) as (channel, _):
        calls = [channel.stream_unary(GENERATE)(timeout=30) for _ in range(10)]
        for call in calls:
            assert await ending(call) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "DEADLINE_EXCEEDED",
            )
        response = await GeneratorServiceStub(channel).Generate(pb.GenerateRequest(question="q"))
        assert response.text == "q"


async def test_a_call_that_is_closed_without_a_request_is_refused() -> None:
    async with talking() as (channel, _):
        for path in (GENERATE, STREAM):
            call = channel.stream_stream(path)(timeout=30)
            await call.done_writing()
            assert await ending(call.read()) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
            )


async def test_a_stream_without_further_requests_is_ended() -> None:
    async with talking(idle_stream_seconds=0.3) as (channel, _):
        call = channel.stream_stream("/test.Echo/Echo")(timeout=30)
        await call.write(b"one")
        assert await call.read() == b"one"
        code, why = await ending(call.read())
        assert (code, why) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_stream_that_nobody_reads_is_ended() -> None:
    async with talking(untaken_seconds=0.3, max_concurrent_calls=1) as (channel, talker):
        unread = GeneratorServiceStub(channel).GenerateStream(pb.GenerateRequest())
        async with asyncio.timeout(20):
            await talker.ended.wait()
        # Its place is free again.
        stub = GeneratorServiceStub(channel)
        response = await stub.Generate(pb.GenerateRequest(question="q"), timeout=20)
        assert response.text == "q"
        unread.cancel()


async def test_a_small_message_that_inflates_beyond_the_limit_is_refused_without_the_memory() -> (
    None
):
    async with talking(max_message_bytes=2**20) as (channel, _):
        generate = channel.unary_unary(GENERATE)
        bomb = pb.GenerateRequest(question="x" * 200_000_000).SerializeToString()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await generate(bomb, compression=compression, timeout=60)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # The caller's own buffers are in this process too; inflated they would come on top.
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 150_000, f"{grown} KiB"
        honest = pb.GenerateRequest(question="x" * 500_000).SerializeToString()
        assert await generate(honest, compression=grpc.Compression.Gzip, timeout=60)
