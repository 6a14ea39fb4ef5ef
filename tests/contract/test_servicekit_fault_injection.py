"""Faults that a caller asks for, over a real socket: with leave, and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit import fault_injection
from quintet_servicekit.channel import Peer
from quintet_servicekit.errors import Reason, ServiceError, from_rpc_error
from quintet_servicekit.fault_injection import HEADER, FaultInjection
from quintet_servicekit.server import Application
from quintet_servicekit.settings import ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"
ABORT = "generator/Generate;abort=UNAVAILABLE"
MESSAGES = 5


class Upstream(GeneratorServiceServicer):
    """Answers, and tells which header a call of its own would have carried on."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        return pb.GenerateResponse(text=fault_injection.carried())

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        try:
            for _ in range(MESSAGES):
                yield pb.GenerateStreamResponse()
        finally:
            self.closed.set()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


async def nothing() -> None:
    return None


@asynccontextmanager
async def served(*, allowed: bool = True) -> AsyncIterator[tuple[Any, Upstream]]:
    upstream = Upstream()

    def register(server: grpc.aio.Server) -> None:
        add_GeneratorServiceServicer_to_server(upstream, server)

    settings = ServiceSettings(
        drain_seconds=1, probe_interval_seconds=0.05, fault_injection=allowed
    )
    application = Application(SERVICE, register, warm_up=nothing, check=nothing)
    async with serving(application, settings) as channel:
        yield GeneratorServiceStub(channel), upstream


async def generated(stub: Any, header: str, **options: Any) -> str:
    response = await stub.Generate(pb.GenerateRequest(), metadata=((HEADER, header),), **options)
    return str(response.text)


async def failure(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value, service="test")


async def test_it_is_off_unless_a_setting_allows_it() -> None:
    assert ServiceSettings().fault_injection is False
    async with served(allowed=False) as (stub, _):
        assert await generated(stub, ABORT) == ""
        assert await generated(stub, "no header at all") == ""


@pytest.mark.parametrize("code", fault_injection.ABORTS)
async def test_an_abort_is_an_error_like_any_other(code: str) -> None:
    async with served() as (stub, _):
        error = await failure(generated(stub, f"generator/*;abort={code}"))
    assert (error.code.name, error.reason) == (code, fault_injection.ABORTS[code])
    assert "generator" in error.metadata.values()


async def test_a_header_that_breaks_the_syntax_is_refused() -> None:
    async with served() as (stub, _):
        error = await failure(generated(stub, "generator/Generate;abort=OK"))
    assert error.reason is Reason.INVALID_FIELD
    assert [it.field for it in error.violations] == [HEADER]


async def test_what_is_addressed_to_others_is_carried_on_to_them() -> None:
    header = "embedder/Embed;abort=UNAVAILABLE"
    async with served() as (stub, _):
        assert await generated(stub, header) == header
        assert (await stub.Generate(pb.GenerateRequest())).text == ""


async def test_a_peers_calls_carry_the_header() -> None:
    async with served() as (stub, _):
        peer = Peer("generator", SERVICE)
        fault_injection.carry(ABORT)
        with pytest.raises(ServiceError) as caught:
            await peer.unary("Generate", stub.Generate, pb.GenerateRequest(), timeout=5)
        fault_injection.carry("")
        await peer.unary("Generate", stub.Generate, pb.GenerateRequest(), timeout=5)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_delay_ends_with_the_callers_deadline() -> None:
    async with served() as (stub, _):
        header = "generator/Generate;delay=10s"
        error = await failure(generated(stub, header, timeout=0.2))
        assert error.reason is Reason.DEADLINE_EXCEEDED
        assert await generated(stub, "generator/Generate;delay=1ms") != ""


async def test_a_stream_is_dropped_after_as_many_messages_as_asked_for() -> None:
    async with served() as (stub, upstream):
        header = "generator/GenerateStream;abort=UNAVAILABLE;after=2"
        stream = stub.GenerateStream(pb.GenerateRequest(), metadata=((HEADER, header),))
        assert await stream.read() == await stream.read() == pb.GenerateStreamResponse()
        error = await failure(stream.read())
        await asyncio.wait_for(upstream.closed.wait(), 5)
    assert error.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_unary_call_cannot_be_dropped_after_messages() -> None:
    async with served() as (stub, _):
        error = await failure(generated(stub, f"{ABORT};after=1"))
    assert error.reason is Reason.INVALID_FIELD


async def test_a_fault_happens_to_as_many_calls_as_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened = []

    class Span:
        def add_event(self, name: str, attributes: Any) -> None:
            happened.append((name, dict(attributes)))

    monkeypatch.setattr(trace, "get_current_span", Span)
    draws = iter([0.19, 0.2, 0.9])
    injection = FaultInjection(lambda: next(draws))

    class Call:
        def invocation_metadata(self) -> Any:
            return ((HEADER, f"{ABORT};percent=20"),)

    async def answer(request: Any, context: Any) -> str:
        return "answer"

    behaviour = injection.around(f"{SERVICE}/Generate", answer, streams=False)
    with pytest.raises(ServiceError):
        await behaviour(None, Call())
    assert await behaviour(None, Call()) == "answer"
    assert await behaviour(None, Call()) == "answer"
    told = {"quintet.fault.delay": 0.0, "quintet.fault.abort": "DEPENDENCY_UNAVAILABLE"}
    assert happened == [("quintet.fault", told)]
    fault_injection.carry("")
