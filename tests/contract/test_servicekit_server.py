"""The kit's server and client ends, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit.channel import Peer
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.server import Application, RunningServer
from quintet_servicekit.settings import ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"


class Scripted(GeneratorServiceServicer):
    """Does what a test tells it to."""

    def __init__(self, act: Callable[[], Awaitable[object]]) -> None:
        self.act = act
        self.closed = asyncio.Event()

    async def Generate(
        self, request: generator_pb.GenerateRequest, context: Any
    ) -> generator_pb.GenerateResponse:
        await self.act()
        return generator_pb.GenerateResponse(text=request.question)

    async def GenerateStream(
        self, request: generator_pb.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb.GenerateStreamResponse]:
        try:
            for _ in range(1_000_000):
                delta = generator_pb.TextDelta(text=request.question)
                yield generator_pb.GenerateStreamResponse(text_delta=delta)
                await self.act()
        finally:
            self.closed.set()

    async def ListModels(
        self, request: generator_pb.ListModelsRequest, context: Any
    ) -> generator_pb.ListModelsResponse:
        return generator_pb.ListModelsResponse()


class Silent(Scripted):
    """Acts before it yields."""

    async def GenerateStream(
        self, request: generator_pb.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb.GenerateStreamResponse]:
        try:
            await self.act()
            yield generator_pb.GenerateStreamResponse()
        finally:
            self.closed.set()


async def nothing() -> None:
    return None


def application(servicer: Scripted, check: Callable[[], Awaitable[None]] = nothing) -> Application:
    return Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(servicer, server),
        warm_up=nothing,
        check=check,
    )


@asynccontextmanager
async def scripted(act: Callable[[], Awaitable[None]]) -> AsyncIterator[tuple[Any, Scripted]]:
    servicer = Scripted(act)
    async with serving(application(servicer)) as channel:
        yield GeneratorServiceStub(channel), servicer


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        raise error

    return act


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    trailers: dict[str, Any] = dict(cast(Any, error.trailing_metadata() or ()))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                found[kind.__name__] = kind.FromString(packed.value)
    return found


async def test_a_service_error_crosses_the_wire_with_all_its_details() -> None:
    error = ServiceError(
        Reason.OVERLOADED,
        "too many",
        metadata={"limit": "3"},
        retry_after=1.5,
        violations=[Violation("texts[2]", "is too long")],
    )
    async with scripted(raising(error)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(generator_pb.GenerateRequest())
        with pytest.raises(ServiceError) as converted:
            await Peer("generator", SERVICE).unary(
                "Generate", stub.Generate, generator_pb.GenerateRequest(), timeout=5
            )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found["ErrorInfo"].reason == "OVERLOADED"
    assert found["ErrorInfo"].domain == "quintet"
    assert found["BadRequest"].field_violations[0].field == "texts[2]"
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    back = converted.value
    assert (back.reason, back.message, back.metadata) == (error.reason, "too many", {"limit": "3"})
    assert (back.retry_after, back.violations) == (1.5, error.violations)


async def test_an_unknown_error_is_internal_and_tells_only_its_trace_id() -> None:
    async with scripted(raising(ValueError("postgres://user:secret@host"))) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(generator_pb.GenerateRequest())
    error = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    trailers: dict[str, Any] = dict(cast(Any, error.trailing_metadata() or ()))
    assert details(error)["ErrorInfo"].metadata["trace_id"] == trailers["quintet-trace-id"]
    assert "secret" not in str(trailers) + str(error.details())


async def test_text_that_is_not_utf8_is_the_callers_fault() -> None:
    async with serving(application(Scripted(nothing))) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Generate", bytes, bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\x12\x02\xff\xfe")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)["ErrorInfo"].reason == "INVALID_FIELD"


async def test_every_response_carries_its_trace_id() -> None:
    async with scripted(nothing) as (stub, _):
        call = stub.Generate(generator_pb.GenerateRequest(question="q"))
        assert (await call).text == "q"
        trailers = dict(await call.trailing_metadata())
    assert len(trailers["quintet-trace-id"]) == 32


async def test_a_stream_whose_caller_leaves_is_closed_at_once() -> None:
    async with scripted(lambda: asyncio.sleep(0.001)) as (stub, servicer):
        call = stub.GenerateStream(generator_pb.GenerateRequest(question="q"))
        await call.read()
        call.cancel()
        await asyncio.wait_for(servicer.closed.wait(), 2)


async def test_a_closed_peer_stream_cancels_the_call() -> None:
    async with scripted(lambda: asyncio.sleep(0.001)) as (stub, servicer):
        stream = Peer("generator", SERVICE).stream(
            "GenerateStream",
            stub.GenerateStream,
            generator_pb.GenerateRequest(question="q"),
            timeout=30,
        )
        assert (await anext(stream)).text_delta.text == "q"
        await stream.aclose()
        await asyncio.wait_for(servicer.closed.wait(), 2)


async def test_a_deadline_ends_the_call_at_both_ends() -> None:
    gone = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with scripted(hang) as (stub, _):
        with pytest.raises(ServiceError) as caught:
            await Peer("generator", SERVICE).unary(
                "Generate", stub.Generate, generator_pb.GenerateRequest(), timeout=0.05
            )
        await asyncio.wait_for(gone.wait(), 2)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"hop": "generator"}


async def test_a_stream_that_does_not_begin_in_time_fails_before_its_own_deadline() -> None:
    servicer = Silent(asyncio.Event().wait)
    async with serving(application(servicer)) as channel:
        stream = Peer("generator", SERVICE).stream(
            "GenerateStream",
            GeneratorServiceStub(channel).GenerateStream,
            generator_pb.GenerateRequest(question="q"),
            timeout=30,
            first_timeout=0.05,
        )
        with pytest.raises(ServiceError) as caught:
            await anext(stream)
        await asyncio.wait_for(servicer.closed.wait(), 2)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"hop": "generator"}


async def test_calls_before_the_warm_up_are_not_ready_and_health_says_so() -> None:
    warm = asyncio.Event()

    async def wait_until_warm() -> None:
        await warm.wait()

    cold = Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(Scripted(nothing), server),
        warm_up=wait_until_warm,
        check=nothing,
    )
    stop = asyncio.Event()
    async with RunningServer(ServiceSettings(lame_duck_seconds=0, drain_seconds=1), cold) as server:
        running = asyncio.create_task(server.until(stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            ask = health_pb2.HealthCheckRequest(service=SERVICE)
            assert (await health.Check(ask)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await GeneratorServiceStub(channel).Generate(generator_pb.GenerateRequest())
            assert details(caught.value)["ErrorInfo"].reason == "NOT_READY"
            warm.set()
            await server.ready()
            assert (await health.Check(ask)).status == health_pb2.HealthCheckResponse.SERVING
        stop.set()
        assert await running == 0


async def test_a_warm_up_that_fails_ends_the_process_with_an_error() -> None:
    broken = Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(Scripted(nothing), server),
        warm_up=raising(RuntimeError("no model")),
        check=nothing,
    )
    settings = ServiceSettings(lame_duck_seconds=0, drain_seconds=0)
    async with RunningServer(settings, broken) as server:
        assert await server.until(asyncio.Event()) == 1


async def test_health_follows_the_dependencies() -> None:
    broken = asyncio.Event()

    async def check() -> None:
        if broken.is_set():
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "gone")

    async with serving(application(Scripted(nothing), check)) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        response = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == response.SERVING
        broken.set()
        assert (await watch.read()).status == response.NOT_SERVING
        broken.clear()
        assert (await watch.read()).status == response.SERVING
        watch.cancel()


async def test_a_server_without_its_dependencies_says_that_it_lives() -> None:
    serving_status = health_pb2.HealthCheckResponse
    check = raising(ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "gone"))
    settings = ServiceSettings(lame_duck_seconds=0, drain_seconds=0)
    async with (
        RunningServer(settings, application(Scripted(nothing), check)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        of_service = health_pb2.HealthCheckRequest(service=SERVICE)
        of_process = health_pb2.HealthCheckRequest(service="grpc.health.v1.Health")
        assert (await health.Check(of_service)).status == serving_status.NOT_SERVING
        assert (await health.Check(of_process)).status == serving_status.SERVING


async def test_a_call_in_flight_finishes_while_the_server_drains() -> None:
    began, finish = asyncio.Event(), asyncio.Event()

    async def act() -> None:
        began.set()
        await finish.wait()

    stop = asyncio.Event()
    async with RunningServer(
        ServiceSettings(lame_duck_seconds=0, drain_seconds=5), application(Scripted(act))
    ) as server:
        running = asyncio.create_task(server.until(stop))
        await server.ready()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        call = GeneratorServiceStub(channel).Generate(generator_pb.GenerateRequest(question="q"))
        await began.wait()
        stop.set()
        assert await running == 0
        asyncio.get_running_loop().call_later(0.1, finish.set)
    assert (await call).text == "q"
    await channel.close(None)


async def test_calls_are_counted_by_method_and_code() -> None:
    labels = {
        "grpc_service": SERVICE,
        "grpc_method": "Generate",
        "grpc_code": "INVALID_ARGUMENT",
    }
    before = REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0
    async with scripted(raising(ServiceError(Reason.INVALID_FIELD, "no"))) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(generator_pb.GenerateRequest())
    assert REGISTRY.get_sample_value("grpc_server_handled_total", labels) == before + 1


async def test_a_probe_that_swallows_a_cancellation_does_not_hang_the_end() -> None:
    swallowed = asyncio.Event()

    async def check() -> None:
        if not swallowed.is_set():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                swallowed.set()

    settings = ServiceSettings(lame_duck_seconds=0, drain_seconds=0, probe_interval_seconds=60)
    async with RunningServer(settings, application(Scripted(nothing), check)) as server:
        stop = asyncio.Event()
        running = asyncio.create_task(server.until(stop))
        await asyncio.sleep(0.1)
        stop.set()
        assert await asyncio.wait_for(running, timeout=5) == 0
    assert swallowed.is_set()
