"""Limits as callers meet them, over two replicas of the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.gateway import gateway_stub, new_collection, reason
from support.replica import second_gateway
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
HOUR = 3_600


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    """The stack's own gateway, which limits nobody."""
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def policy(scope: str, **limits: Any) -> str:
    return json.dumps({scope: limits})


async def limited(
    stack: TestStack, exit_stack: AsyncExitStack, name: str, policy: str, replicas: int = 1
) -> list[Any]:
    """Return stubs of gateways with a policy, whose limits are theirs alone by `name`."""
    stubs = []
    for _ in range(replicas):
        address = await exit_stack.enter_async_context(
            second_gateway(
                stack,
                LIMITS__POLICY=policy,
                CACHE__NAMESPACE=name,
                # A loaded machine must not look like a Redis that is gone.
                CACHE__REDIS_TIMEOUT_SECONDS="2",
            )
        )
        stubs.append(await exit_stack.enter_async_context(gateway_stub(address)))
    return stubs


async def outcome(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason(error)
    return "OK"


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(cast(Any, error.trailing_metadata() or ()))


def retry_seconds(error: grpc.aio.AioRpcError) -> float:
    status = status_pb2.Status.FromString(trailers(error)["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(it.Is(retry.DESCRIPTOR) and it.Unpack(retry) for it in status.details)
    return float(retry.retry_delay.ToMilliseconds() / 1_000)


async def test_of_calls_at_once_to_two_replicas_as_many_as_the_limit_are_served(
    stack: TestStack, stub: Any
) -> None:
    rates = [{"limit": 20, "seconds": HOUR}]
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        gateways = await limited(stack, exits, "two", policy("key", requests=rates), replicas=2)
        search = pb.SearchRequest(collection=name, query="what bees make is sweet")
        told = await asyncio.gather(*(outcome(gateways[i % 2].Search(search)) for i in range(100)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateways[0].Search(search)
        # Who has nothing left may still see how things are.
        await gateways[1].GetStatus(pb.GetStatusRequest())
    assert told.count("OK") == 20
    assert told.count("RATE_LIMITED") == 80
    error = refused.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 0 < retry_seconds(error) <= HOUR / 20
    assert trailers(error)["quintet-limit"] == "key requests/3600s"
    assert trailers(error)["quintet-limit-remaining"] == "0"
    assert trailers(error)["quintet-trace-id"]


async def test_kept_answers_are_requests_and_cost_no_tokens(stack: TestStack, stub: Any) -> None:
    limits = policy(
        "tenant",
        requests=[{"limit": 5, "seconds": HOUR}],
        tokens=[{"limit": 1_900, "seconds": 30 * 86_400}],
    )
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        [gateway] = await limited(stack, exits, "tokens", limits)
        ask = pb.AskRequest(collection=name, question="What do bees make?")
        first = await gateway.Ask(ask)
        spent = first.usage.prompt_tokens + first.usage.completion_tokens
        assert 0 < spent < 1_000
        # Another answer may take more than is left, so it is not begun. A kept one is served.
        other = pb.AskRequest(collection=name, question="Is honey sweet?")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.Ask(other)
        assert reason(refused.value) == "RATE_LIMITED"
        call = gateway.Ask(ask)
        bill = (await call).bill
        assert bill.saved_nanos > 0
        assert not any(it.input_tokens + it.output_tokens for it in bill.lines)
        told = dict(cast(Any, await call.trailing_metadata()))
        assert told["quintet-limit"] == "tenant requests/3600s"
        assert told["quintet-limit-remaining"] == "2"
        # A short answer, for which there is enough.
        other.max_tokens = 1
        other.question = "Do bees make honey?"
        assert await outcome(gateway.Ask(other)) == "OK"
        events = [event async for event in gateway.AskStream(ask)]
        assert events[-1].HasField("completed")
        with pytest.raises(grpc.aio.AioRpcError) as none_left:
            await gateway.Ask(ask)
    assert trailers(none_left.value)["quintet-limit"] == "tenant requests/3600s"


async def test_a_stream_that_is_left_gives_its_place_back(stack: TestStack, stub: Any) -> None:
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        [gateway] = await limited(stack, exits, "streams", policy("everybody", streams=1))
        ingest = gateway.Ingest()
        await ingest.write(pb.IngestRequest(collection=name, document=BEES))
        await ingest.read()  # so it is under way
        ask = pb.AskRequest(collection=name, question="What do bees make?")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in gateway.AskStream(ask):
                pass
        assert trailers(refused.value)["quintet-limit-remaining"] == "0"
        assert reason(refused.value) == "RATE_LIMITED"
        await ingest.done_writing()
        assert await ingest.code() is grpc.StatusCode.OK
        async with asyncio.timeout(30):
            served = False
            while not served:
                try:
                    served = bool([event async for event in gateway.AskStream(ask)])
                except grpc.aio.AioRpcError as error:
                    assert reason(error) == "RATE_LIMITED"
