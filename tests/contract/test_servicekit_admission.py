"""What a server refuses when it has enough to do, and what it never does, over a socket."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import REGISTRY
from support.grpc_service import serving

from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import (
    TokenizerServiceServicer,
    TokenizerServiceStub,
    add_TokenizerServiceServicer_to_server,
)
from quintet_servicekit.channel import Peer
from quintet_servicekit.line import LINE_KEY
from quintet_servicekit.priority import PRIORITY_KEY, Priority, priority_now
from quintet_servicekit.server import Application
from quintet_servicekit.settings import AdmissionSettings, ServiceSettings

SERVICE = "quintet.tokenizer.v1.TokenizerService"
BULK = ((PRIORITY_KEY, "bulk"),)


class Busy(TokenizerServiceServicer):
    """Keeps calls of Count until it is told to let them go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self.most = 0
        self.order: list[str] = []
        self.priorities: list[Priority] = []

    async def Count(self, request: pb.CountRequest, context: Any) -> pb.CountResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(request.model)
        self.priorities.append(priority_now.get())
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        return pb.CountResponse(model=request.model)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:
        return pb.ListModelsResponse()

    async def Encode(self, request: Any, context: Any) -> Any:
        raise AssertionError

    Decode = Truncate = Chunk = Encode


async def nothing() -> None:
    return None


@asynccontextmanager
async def busy(
    admission: AdmissionSettings | None = None, *, most: int = 512, servicer: Busy | None = None
) -> AsyncIterator[tuple[Busy, grpc.aio.Channel, Any]]:
    servicer = servicer or Busy()
    application = Application(
        SERVICE,
        lambda server: add_TokenizerServiceServicer_to_server(servicer, server),
        warm_up=nothing,
        check=nothing,
        unlimited_methods=frozenset({"ListModels"}),
    )
    settings = ServiceSettings(
        drain_seconds=1,
        probe_interval_seconds=0.05,
        max_concurrent_calls=most,
        admission=admission or AdmissionSettings(),
    )
    async with serving(application, settings) as channel:
        stub = TokenizerServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest())
        try:
            yield servicer, channel, stub
        finally:
            servicer.go.set()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def refused(priority: str) -> float:
    name = "quintet_admission_refused_total"
    return REGISTRY.get_sample_value(name, {"priority": priority}) or 0.0


async def hold(servicer: Busy, stub: Any, calls: int) -> list[Any]:
    """Start calls that last, the first of which teaches the interceptor the method."""
    held = []
    for number in range(calls):
        held.append(stub.Count(pb.CountRequest(model=f"held {number}"), timeout=30))
        await until(lambda: servicer.running > number)  # noqa: B023 - awaited here
    return held


async def test_what_is_too_much_is_refused_with_the_time_to_come_back() -> None:
    async with busy(most=4) as (servicer, _, stub):
        before = refused("question")
        held = await hold(servicer, stub, 4)
        errors = []
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Count(pb.CountRequest(), timeout=5)
            errors.append(caught.value)
        assert refused("question") == before + 10
        servicer.go.set()
        assert [(await call).model for call in held] == [f"held {number}" for number in range(4)]
    pushbacks = []
    for error in errors:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        status = rpc_status.from_call(cast(Any, error))
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert info.reason == "OVERLOADED"
        trailers = dict(cast(Any, error.trailing_metadata() or ()))
        pushbacks.append(int(trailers["grpc-retry-pushback-ms"]))
        assert retry.retry_delay.ToMilliseconds() == 200
    assert all(100 <= pushback <= 300 for pushback in pushbacks)
    assert len(set(pushbacks)) > 1
    assert servicer.most == 4


async def test_a_refused_request_is_not_even_read() -> None:
    async with busy(most=1) as (servicer, channel, stub):
        await hold(servicer, stub, 1)
        count = channel.unary_unary(f"/{SERVICE}/Count", bytes, bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await count(b"\x12\x02\xff\xfe")  # a text that is not UTF-8
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_and_unlimited_methods_are_never_refused() -> None:
    async with busy(most=1) as (servicer, channel, stub):
        await hold(servicer, stub, 1)
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(20):
            await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
            await stub.ListModels(pb.ListModelsRequest())


async def test_a_place_is_free_again_when_its_caller_leaves() -> None:
    async with busy(most=1) as (servicer, _, stub):
        for _ in range(3):
            (call,) = await hold(servicer, stub, 1)
            call.cancel()
            await until(lambda: servicer.running == 0)
        servicer.go.set()
        await stub.Count(pb.CountRequest(), timeout=5)


async def test_bulk_calls_wait_in_line_and_leave_the_rest_to_questions() -> None:
    settings = AdmissionSettings(bulk_share=0.25)
    async with busy(settings, most=8) as (servicer, _, stub):
        bulk = [
            stub.Count(pb.CountRequest(model="bulk"), timeout=30, metadata=BULK) for _ in range(10)
        ]
        await until(lambda: servicer.running == 2)
        questions = [stub.Count(pb.CountRequest(model="question"), timeout=30) for _ in range(6)]
        await until(lambda: servicer.running == 8)
        assert servicer.order.count("bulk") == 2
        servicer.go.set()
        await asyncio.gather(*bulk, *questions)
        assert servicer.order.count("bulk") == 10
        assert servicer.priorities.count(Priority.BULK) == 10


async def test_one_bulk_call_goes_on_among_too_many_questions() -> None:
    async with busy(most=4) as (servicer, _, stub):
        await hold(servicer, stub, 4)
        bulk = stub.Count(pb.CountRequest(model="bulk"), timeout=30, metadata=BULK)
        await until(lambda: servicer.order.count("bulk") == 1)
        servicer.go.set()
        await bulk


async def test_a_line_of_bulk_calls_is_bounded_in_length_and_time() -> None:
    settings = AdmissionSettings(bulk_calls=1, bulk_waiting=1, bulk_wait_seconds=0.2)
    async with busy(settings) as (servicer, _, stub):

        def bulk() -> Any:
            return stub.Count(pb.CountRequest(), timeout=30, metadata=BULK)

        running = bulk()
        await until(lambda: servicer.running == 1)
        waiting = bulk()
        await until(lambda: REGISTRY.get_sample_value("quintet_admission_waiting") == 1)
        began = time.monotonic()
        for call in (bulk(), waiting):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert time.monotonic() - began > 0.1
        left = bulk()
        await until(lambda: REGISTRY.get_sample_value("quintet_admission_waiting") == 1)
        left.cancel()
        await until(lambda: REGISTRY.get_sample_value("quintet_admission_waiting") == 0)
        servicer.go.set()
        await running
        await bulk()


async def test_a_call_made_for_bulk_is_bulk_further_down() -> None:
    async with busy() as (servicer, _, stub):
        servicer.go.set()
        peer = Peer("tokenizer", SERVICE)
        await peer.unary("Count", stub.Count, pb.CountRequest(), timeout=5)
        priority_now.set(Priority.BULK)
        await peer.unary("Count", stub.Count, pb.CountRequest(), timeout=5)
        assert servicer.priorities == [Priority.QUESTION, Priority.BULK]


async def test_callers_in_too_much_haste_do_not_lower_the_limit_of_the_others() -> None:
    async with busy(AdmissionSettings(least_calls=2), most=64) as (_, _, stub):
        hasty = [stub.Count(pb.CountRequest(), timeout=0.05) for _ in range(30)]
        for ended in await asyncio.gather(*hasty, return_exceptions=True):
            assert isinstance(ended, grpc.aio.AioRpcError)
            assert ended.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        name = "quintet_admission_in_flight"
        await until(lambda: REGISTRY.get_sample_value(name, {"priority": "question"}) == 0)
        assert REGISTRY.get_sample_value("quintet_admission_limit", {"priority": "question"}) == 64


async def test_the_limit_follows_what_callers_can_wait_for_and_recovers() -> None:
    settings = AdmissionSettings(least_calls=2)

    def limit() -> float:
        return REGISTRY.get_sample_value("quintet_admission_limit", {"priority": "question"}) or 0

    async with busy(settings, most=64) as (servicer, _, stub):
        assert limit() == 64
        late = [stub.Count(pb.CountRequest(), timeout=0.2) for _ in range(30)]
        for ended in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(ended, grpc.aio.AioRpcError)
            assert ended.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: limit() < 64)
        servicer.go.set()
        for _ in range(1_000):
            await stub.Count(pb.CountRequest(), timeout=5)
            if limit() == 64:
                break
        assert limit() == 64


class Slow(Busy):
    """Keeps its whole process busy with each call."""

    async def Count(self, request: pb.CountRequest, context: Any) -> pb.CountResponse:
        time.sleep(0.003)  # noqa: ASYNC251  this is what is tried
        return pb.CountResponse(model=request.model)


async def flood(stub: Any, calls: int, timeout: float) -> Counter[str]:
    """Make so many calls at once; return how they ended."""

    async def one() -> str:
        try:
            await stub.Count(pb.CountRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    return Counter(await asyncio.gather(*(one() for _ in range(calls))))


async def test_who_spends_most_of_its_time_in_line_is_refused() -> None:
    async with busy(servicer=Slow()) as (_, _, stub):
        # All would take more than two seconds.
        ended = await flood(stub, 700, timeout=2.0)
        assert ended["RESOURCE_EXHAUSTED"] > 100
        assert ended["OK"] >= 100
        assert ended["DEADLINE_EXCEEDED"] < 0.1 * ended.total()
        # And nobody is when the line is short again.
        assert await flood(stub, 10, timeout=2.0) == {"OK": 10}


async def test_a_burst_of_calls_that_can_wait_is_answered() -> None:
    async with busy(servicer=Slow()) as (_, _, stub):
        assert await flood(stub, 500, timeout=30.0) == {"OK": 500}
        assert line_seconds() > 0


async def test_nobody_else_makes_calls_that_do_nothing() -> None:
    async with busy() as (servicer, _, stub):
        servicer.go.set()
        for _ in range(2):
            call = stub.Count(pb.CountRequest(model="it"), metadata=((LINE_KEY, "guessed"),))
            assert (await call).model == "it"


def line_seconds() -> float:
    name = "quintet_admission_line_seconds"
    return REGISTRY.get_sample_value(name, {"grpc_method": "Count"}) or 0.0
