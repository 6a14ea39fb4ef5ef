"""What a stream of the generator costs whose caller leaves, or that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import Price, PriceTable
from quintet_gateway.chain import Chain
from quintet_gateway.usage.entry import Entry
from quintet_gateway.usage.ledger import Ledger
from quintet_servicekit.channel import Peer
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.server import Application
from quintet_servicekit.token_estimate import estimate_tokens

SERVICE = "quintet.generator.v1.GeneratorService"
REQUEST = pb.GenerateRequest(model="big", question="why " * 30)
PRICES = PriceTable(
    currency="USD",
    prices=(
        Price(hop="generator", model="big", input_per_million=10**6, output_per_million=10**7),
    ),
)


class Endless(GeneratorServiceServicer):
    """Sends some pieces of text, and then fails or waits for its caller to leave."""

    def __init__(self) -> None:
        self.failure: ServiceError | None = None
        self.begins = True
        self.pieces = ["because "] * 3

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        if self.begins:
            for piece in self.pieces:
                yield pb.GenerateStreamResponse(text_delta=pb.TextDelta(text=piece))
        if self.failure is not None:
            raise self.failure
        await asyncio.Event().wait()


async def _nothing() -> None:
    return None


@pytest.fixture
async def endless() -> AsyncIterator[tuple[Endless, grpc.aio.Channel]]:
    servicer = Endless()  # type: ignore[abstract]  # it only streams
    application = Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(servicer, server),
        warm_up=_nothing,
        check=_nothing,
    )
    async with serving(application) as channel:
        yield servicer, channel


def answering(channel: grpc.aio.Channel, meter: Meter) -> AsyncGenerator[pb.GenerateStreamResponse]:
    chain = Chain(Deadline.after(60), meter=meter)
    stub: Any = GeneratorServiceStub(channel)
    peer = Peer("generator", SERVICE)
    return chain.stream(peer, "GenerateStream", stub.GenerateStream, REQUEST, model="big")


def paid() -> float:
    labels = {"model": "big", "hop": "generator"}
    return REGISTRY.get_sample_value("quintet_cost_micros_total", labels) or 0.0


async def test_who_leaves_a_stream_pays_for_the_prompt_and_what_was_written(
    endless: tuple[Endless, grpc.aio.Channel],
) -> None:
    before, meter = paid(), Meter(PRICES)
    async with aclosing(answering(endless[1], meter)) as events:
        for _ in range(2):
            await anext(events)
    [line] = meter.bill().lines
    assert (line.input_tokens, line.output_tokens, line.estimated) == (40, 6, True)
    assert line.cost_nanos == 40 * 1_000 + 6 * 10_000
    assert paid() - before == pytest.approx(100)


async def test_who_is_cancelled_while_waiting_pays_too(
    endless: tuple[Endless, grpc.aio.Channel],
) -> None:
    meter, third = Meter(PRICES), asyncio.Event()

    async def read() -> None:
        number = 0
        async with aclosing(answering(endless[1], meter)) as events:
            async for _ in events:
                number += 1
                if number == 3:
                    third.set()

    reading = asyncio.create_task(read())
    await third.wait()
    reading.cancel()
    await asyncio.wait({reading})
    [line] = meter.bill().lines
    assert (line.input_tokens, line.output_tokens) == (40, 8)


async def test_a_stream_that_breaks_is_paid_as_far_as_it_came(
    endless: tuple[Endless, grpc.aio.Channel],
) -> None:
    meter = Meter(PRICES)
    endless[0].failure = ServiceError(Reason.INTERNAL, "broken")
    with pytest.raises(ServiceError):
        async with aclosing(answering(endless[1], meter)) as events:
            async for _ in events:
                pass
    [line] = meter.bill().lines
    assert (line.input_tokens, line.output_tokens, line.estimated) == (40, 8, True)


async def test_a_stream_that_never_begins_costs_no_token(
    endless: tuple[Endless, grpc.aio.Channel],
) -> None:
    meter = Meter(PRICES)
    endless[0].begins, endless[0].failure = False, ServiceError(Reason.INTERNAL, "broken")
    with pytest.raises(ServiceError):
        async with aclosing(answering(endless[1], meter)) as events:
            await anext(events)
    assert meter.bill().cost_nanos == 0


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    pieces=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6),
    read=st.integers(0, 7),
    turns=st.integers(0, 30),
    way=st.sampled_from(["close", "cancel", "fail"]),
)
async def test_whenever_a_stream_ends_what_was_written_until_then_is_paid_once(
    endless: tuple[Endless, grpc.aio.Channel],
    pieces: list[str],
    read: int,
    turns: int,
    way: str,
) -> None:
    """A caller leaves after `read` events, or is cancelled `turns` of the loop later."""
    meter, seen, enough = Meter(PRICES), list[str](), asyncio.Event()
    endless[0].pieces = pieces
    endless[0].failure = ServiceError(Reason.INTERNAL, "broken") if way == "fail" else None
    booked: list[Entry] = []
    ledger = Ledger(SimpleNamespace(put=booked.append))
    read = min(read, len(pieces))

    async def caller() -> None:
        try:
            async with aclosing(answering(endless[1], meter)) as events:
                if not read:
                    enough.set()
                async for event in events:
                    seen.append(event.text_delta.text)
                    if len(seen) == read:
                        enough.set()
                        if way == "close":
                            return
        finally:
            ledger.settle(meter)

    if way == "close" and not read:
        return  # It has not been asked for anything.
    calling = asyncio.create_task(caller())
    if way == "cancel":
        await enough.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
    await asyncio.wait({calling})
    bill = meter.bill()
    prompt = 40 if seen or way == "cancel" else 0
    if bill.lines:
        [line] = bill.lines
        assert (line.input_tokens, line.output_tokens) == (prompt, estimate_tokens("".join(seen)))
    else:
        assert not seen  # It left before the call began.
    ledger.settle(meter)
    assert sum(it.cost for entry in booked for it in entry.used) == bill.cost_nanos
    assert [entry.calls for entry in booked] == [1]
