"""Client channels: load balancing, health checking and retries, over real sockets."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from bench.open_breaker import open_breaker, refusals, through_peer
from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import (
    TokenizerServiceServicer,
    TokenizerServiceStub,
    add_TokenizerServiceServicer_to_server,
)
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.errors import DETAILS_KEY, Reason, ServiceError, to_status
from quintet_servicekit.hedging import LEAST_CALLS, Hedging
from quintet_servicekit.server import Application, RunningServer
from quintet_servicekit.settings import ChannelSettings, ServiceSettings

SERVICE = "quintet.tokenizer.v1.TokenizerService"


class Replica(TokenizerServiceServicer):
    """Answers with its name, after failing as often as it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = Reason.DEPENDENCY_UNAVAILABLE
        self.healthy = True
        self.retry_after = 0.01
        self.pause = 0.0
        self.idle = asyncio.Event()
        self.failures = 0
        self.calls = 0

    async def Count(self, request: pb.CountRequest, context: Any) -> pb.CountResponse:
        self.calls += 1
        self.idle.clear()
        try:
            await asyncio.sleep(self.pause)
        finally:
            self.idle.set()
        if self.failures:
            self.failures -= 1
            raise ServiceError(self.reason, "not now", retry_after=self.retry_after)
        return pb.CountResponse(model=self.name)

    async def check(self) -> None:
        if not self.healthy:
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "ill")

    async def Encode(self, request: Any, context: Any) -> Any:
        raise AssertionError

    Decode = Truncate = Chunk = ListModels = Encode


def registered(replica: Replica, server: grpc.aio.Server) -> None:
    add_TokenizerServiceServicer_to_server(replica, server)


async def nothing() -> None:
    return None


@asynccontextmanager
async def replicas(*names: str) -> AsyncIterator[tuple[list[Replica], str]]:
    """Run replicas; yield them and a target that names all their addresses."""
    async with AsyncExitStack() as stack:
        running, ports = [], []
        for name in names:
            replica = Replica(name)
            application = Application(
                SERVICE, partial(registered, replica), warm_up=nothing, check=replica.check
            )
            settings = ServiceSettings(
                lame_duck_seconds=0, drain_seconds=0, probe_interval_seconds=0.02
            )
            server = await stack.enter_async_context(RunningServer(settings, application))
            stop = asyncio.Event()
            task = asyncio.create_task(server.until(stop))
            stack.push_async_callback(asyncio.wait_for, task, 5)
            stack.callback(stop.set)
            await server.ready()
            running.append(replica)
            ports.append(server.port)
        yield running, "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)


async def count(stub: Any, timeout: float = 5) -> str:
    response = await Peer("tokenizer", SERVICE).unary(
        "Count", stub.Count, pb.CountRequest(), timeout=timeout
    )
    return str(response.model)


async def test_calls_are_spread_over_all_addresses() -> None:
    async with (
        replicas("a", "b") as (_, target),
        open_channel(target, SERVICE, ChannelSettings()) as channel,
    ):
        stub = TokenizerServiceStub(channel)
        await count(stub)
        await asyncio.sleep(0.2)
        served = Counter([await count(stub) for _ in range(20)])
    assert served == {"a": 10, "b": 10}


async def test_a_replica_that_is_not_serving_gets_no_calls() -> None:
    async with (
        replicas("a", "b") as ((ill, _), target),
        open_channel(target, SERVICE, ChannelSettings()) as channel,
    ):
        stub = TokenizerServiceStub(channel)
        await count(stub)
        ill.healthy = False
        await asyncio.sleep(0.3)
        assert Counter([await count(stub) for _ in range(10)]) == {"b": 10}
        ill.healthy = True
        await asyncio.sleep(0.3)
        assert Counter([await count(stub) for _ in range(10)]) == {"a": 5, "b": 5}


async def test_an_unavailable_call_is_tried_again_a_bounded_number_of_times() -> None:
    async with replicas("a") as ((replica,), target):
        settings = ChannelSettings(max_attempts=3)
        async with open_channel(target, SERVICE, settings) as channel:
            stub = TokenizerServiceStub(channel)
            replica.failures = 2
            assert await count(stub) == "a"
            assert replica.calls == 3
            replica.failures, replica.calls = 100, 0
            with pytest.raises(ServiceError) as caught:
                await count(stub)
            assert caught.value.message == "not now"
            assert replica.calls == 3


async def test_a_call_that_an_open_breaker_refuses_is_not_tried_again() -> None:
    async with (
        replicas("a") as ((replica,), target),
        open_channel(target, SERVICE, ChannelSettings(max_attempts=3)) as channel,
    ):
        replica.failures, replica.reason = 1, Reason.CIRCUIT_OPEN
        with pytest.raises(ServiceError) as caught:
            await count(TokenizerServiceStub(channel))
        assert caught.value.reason is Reason.CIRCUIT_OPEN
        assert replica.calls == 1


async def test_a_peer_makes_no_call_while_its_breaker_is_open() -> None:
    breaker = Breaker(
        "tokenizer",
        BreakerSettings(consecutive_failures=2, open_seconds=600.0, max_open_seconds=600.0),
    )
    peer = Peer("tokenizer", SERVICE, breaker)
    async with (
        replicas("a") as ((replica,), target),
        open_channel(target, SERVICE, ChannelSettings(max_attempts=1)) as channel,
    ):
        count = TokenizerServiceStub(channel).Count
        replica.failures = 1_000
        reasons = []
        for _ in range(5):
            with pytest.raises(ServiceError) as caught:
                await peer.unary("Count", count, pb.CountRequest(), timeout=5)
            reasons.append(caught.value.reason)
        assert reasons == [Reason.DEPENDENCY_UNAVAILABLE] * 2 + [Reason.CIRCUIT_OPEN] * 3
        assert replica.calls == 2
        assert breaker.snapshot().rejections == 3


async def test_a_refusal_of_a_peer_takes_less_than_a_tenth_of_a_millisecond() -> None:
    breaker = open_breaker()
    async with open_channel("127.0.0.1:1", SERVICE, ChannelSettings()) as channel:
        seconds = await refusals(through_peer(breaker, channel), 500)
    assert statistics.median(seconds) < 1e-4
    assert breaker.snapshot().rejections == 500


async def test_retries_stop_when_they_are_a_large_share_of_all_calls() -> None:
    async with (
        replicas("a") as ((replica,), target),
        open_channel(target, SERVICE, ChannelSettings(max_attempts=3)) as channel,
    ):
        stub = TokenizerServiceStub(channel)
        replica.failures = 1_000
        for _ in range(30):
            with pytest.raises(ServiceError):
                await count(stub)
    # Without throttling there would be 90.
    assert replica.calls < 55


async def test_a_refused_call_is_tried_again_when_the_service_says_so() -> None:
    async with (
        replicas("a") as ((replica,), target),
        open_channel(target, SERVICE, ChannelSettings(max_attempts=3)) as channel,
    ):
        replica.failures, replica.reason, replica.retry_after = 1, Reason.OVERLOADED, 1.0
        began = time.monotonic()
        assert await count(TokenizerServiceStub(channel)) == "a"
        # The channel's own pause would be at most 0.06 s.
        assert time.monotonic() - began >= 0.45
        assert replica.calls == 2


async def test_retries_do_not_multiply_what_a_service_refuses() -> None:
    calls = 200
    async with (
        replicas("a") as ((replica,), target),
        open_channel(target, SERVICE, ChannelSettings(max_attempts=5)) as channel,
    ):
        stub = TokenizerServiceStub(channel)
        replica.failures, replica.reason = 10**6, Reason.OVERLOADED
        for _ in range(calls):
            with pytest.raises(ServiceError) as caught:
                await count(stub)
            assert caught.value.reason is Reason.OVERLOADED
        # The tokens that a channel begins with pay for ten failures, and none come back.
        assert replica.calls <= calls + 10
        at_first = replica.calls
        for _ in range(calls):
            replica.failures = 0
            await count(stub)
            replica.failures = 10**6
            with pytest.raises(ServiceError):
                await count(stub)
        # A tenth of a token comes back with each success: retries are a tenth of them.
        assert replica.calls - at_first <= 2 * calls + 0.1 * calls


async def test_a_call_to_a_slow_replica_is_answered_by_another() -> None:
    hedging = Hedging(SERVICE, frozenset({"Count"}), ratio=1.0)
    peer = Peer("tokenizer", SERVICE, hedging=hedging)
    async with (
        replicas("slow", "quick") as ((slow, _), target),
        open_channel(target, SERVICE, ChannelSettings()) as channel,
    ):
        stub = TokenizerServiceStub(channel)

        async def answered() -> str:
            response = await peer.unary("Count", stub.Count, pb.CountRequest(), timeout=20)
            return str(response.model)

        async with asyncio.timeout(20):
            while len({await answered() for _ in range(10)}) < 2:
                pass
            for _ in range(LEAST_CALLS):
                await answered()
            slow.pause = 30.0
            assert {await answered() for _ in range(6)} == {"quick"}
            await asyncio.wait_for(slow.idle.wait(), 5)


async def test_a_service_that_nobody_runs_is_unavailable_at_once() -> None:
    async with serving_port() as port:
        pass
    async with open_channel(f"127.0.0.1:{port}", SERVICE, ChannelSettings()) as channel:
        with pytest.raises(ServiceError) as caught:
            await count(TokenizerServiceStub(channel))
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert caught.value.metadata == {"dependency": "tokenizer"}


@asynccontextmanager
async def serving_port() -> AsyncIterator[int]:
    async with replicas("gone") as (_, target):
        yield int(target.rsplit(":", 1)[1])


@asynccontextmanager
async def refusing_stream(refusals: int) -> AsyncIterator[Any]:
    """Yield the call of a stream whose server refuses so many times, and then ends it well."""
    calls = 0

    def chunk(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        nonlocal calls
        calls += 1
        if calls <= refusals:
            refused = ServiceError(Reason.PERMISSION_DENIED, "this needs another key")
            context.set_trailing_metadata(((DETAILS_KEY, to_status(refused).SerializeToString()),))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.message)
        yield from ()

    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.stream_stream_rpc_method_handler(chunk)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {"Chunk": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.stream_stream(f"/{SERVICE}/Chunk", bytes, bytes)
    finally:
        server.stop(None).wait()


async def reason_of(call: Any, requests: AsyncIterator[bytes]) -> Reason:
    with pytest.raises(ServiceError) as raised:
        async for _ in Peer("tokenizer", SERVICE).exchange("Chunk", call, requests, timeout=5):
            raise AssertionError
    return raised.value.reason


async def test_a_stream_that_ends_while_a_request_is_on_its_way_tells_why() -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b""
        time.sleep(0.3)  # noqa: ASYNC251  this loop is not told meanwhile that the call has ended
        yield b""

    # Whether gRPC's client loses the status then is a matter of who is first.
    async with refusing_stream(refusals=2) as call:
        assert await reason_of(call, requests()) is Reason.PERMISSION_DENIED


class Lost:
    """A call as gRPC's client ends it that lost its status."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        none = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.INTERNAL, none, none, "Internal error from Core", None
        )
        yield b""  # type: ignore[unreachable]  # makes it a generator

    def cancel(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("refusals", "reason"),
    [(1, Reason.PERMISSION_DENIED), (0, Reason.DEPENDENCY_UNAVAILABLE)],
)
async def test_of_a_call_that_lost_its_status_the_far_end_is_asked_again(
    refusals: int, reason: Reason
) -> None:
    async def none() -> AsyncIterator[bytes]:
        for each in tuple[bytes, ...]():
            yield each

    async with refusing_stream(refusals) as asked_again:
        calls = iter([lambda *_, **__: Lost(), asked_again])
        assert await reason_of(lambda *args, **kw: next(calls)(*args, **kw), none()) is reason
