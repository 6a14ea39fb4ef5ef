"""What it costs to be refused by an open breaker, alone and through a service's peer.

    python -m bench.open_breaker

docs/degradation.md has what came out. A call of the peer makes a span and counts itself; the
span is not recorded, as where no receiver is set.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import grpc

from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.settings import ChannelSettings

CALLS = 20_000
SERVICE = "quintet.tokenizer.v1.TokenizerService"


async def refusals(call: Callable[[], Awaitable[None]], calls: int) -> list[float]:
    """Return the seconds that each of `calls` refusals took, in order of size."""
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        try:
            await call()
        except ServiceError as error:
            seconds.append(time.perf_counter() - began)
            assert error.reason is Reason.CIRCUIT_OPEN and error.retry_after
    assert len(seconds) == calls, "the breaker let calls through"
    return sorted(seconds)


def open_breaker() -> Breaker:
    """Return a breaker that stays open."""
    breaker = Breaker("tokenizer", BreakerSettings())
    breaker.trip(600.0, "measured")
    return breaker


async def through_guard(breaker: Breaker) -> None:
    """Make a call inside the breaker alone."""
    with breaker.guard(timeout=1.0):
        pass


def through_peer(breaker: Breaker, channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    """Return what makes a call of a service through a peer with that breaker."""
    peer, stub = Peer("tokenizer", SERVICE, breaker), TokenizerServiceStub(channel)
    request = pb.CountRequest(texts=["text"])

    async def call() -> None:
        await peer.unary("Count", stub.Count, request, timeout=1.0)

    return call


async def main() -> None:
    """Measure both, and print the median, the 99th percentile and the longest."""
    breaker = open_breaker()
    # Nobody listens there: whoever got through would be told so, late.
    channel = open_channel("127.0.0.1:1", SERVICE, ChannelSettings())
    for name, call in (
        ("Breaker.guard", lambda: through_guard(breaker)),
        ("Peer.unary", through_peer(breaker, channel)),
    ):
        seconds = await refusals(call, CALLS)
        told = (statistics.median(seconds), seconds[int(0.99 * CALLS)], seconds[-1])
        print(f"{name:14}", " / ".join(f"{1e6 * it:.1f} µs" for it in told))
    await channel.close(None)


if __name__ == "__main__":
    asyncio.run(main())
