"""Callers who do not wait for each other: questions at a rate, whatever becomes of them.

    python -m bench.workers.open_loop ADDRESS COLLECTION

A process of its own, and requests made before they are due, so that what it computes
costs the services that it shares cores with as little as can be.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import uvloop

from bench.corpus import questions
from bench.workers.serving import Answer, serve
from quintet.gateway.v1 import gateway_service_pb2 as pb

ASK = "/quintet.gateway.v1.GatewayService/Ask"

Call = tuple[float, float, str]
"""When a question was due, in seconds since the start; what passed until its end; and
what that was: "good", "degraded", or a status code's name."""


def open_worker() -> Answer:
    """Make the questions ready."""
    address, collection = sys.argv[1:3]
    known = questions(256)
    chance = random.Random(1)
    numbers = itertools.count()

    def requests(distinct: bool) -> Iterator[bytes]:
        for known_question in itertools.cycle(known[: 256 if distinct else 32]):
            question = f"{known_question} ({next(numbers)})" if distinct else known_question
            yield pb.AskRequest(
                collection=collection, question=question, model="extractive"
            ).SerializeToString()

    async def ask(call: Any, request: bytes, deadline: float) -> str:
        try:
            response: bytes = await call(request, timeout=deadline)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "degraded" if pb.AskResponse.FromString(response).degradations else "good"

    async def at_a_rate(rate: float, seconds: float, deadline: float, distinct: bool) -> list[Call]:
        due = [0.0]
        while due[-1] < seconds:
            due.append(due[-1] + chance.expovariate(rate))
        ready = list(itertools.islice(requests(distinct), len(due)))
        found: list[Call] = []
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            call = channel.unary_unary(ASK, None, None)
            began = time.perf_counter()

            async def one(at: float, request: bytes) -> None:
                outcome = await ask(call, request, deadline)
                found.append((at, time.perf_counter() - began - at, outcome))

            async with asyncio.TaskGroup() as group:
                for at, request in zip(due, ready, strict=True):
                    pause = at - (time.perf_counter() - began)
                    if pause > 0:
                        await asyncio.sleep(pause)
                    group.create_task(one(at, request))
        return found

    async def in_turn(callers: int, seconds: float, deadline: float, distinct: bool) -> list[Call]:
        source, found = requests(distinct), list[Call]()
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(ASK, None, None)
            began = time.perf_counter()

            async def caller() -> None:
                while (at := time.perf_counter() - began) < seconds:
                    outcome = await ask(call, next(source), deadline)
                    found.append((at, time.perf_counter() - began - at, outcome))

            await asyncio.gather(*(caller() for _ in range(callers)))
        return found

    def answer(
        *,
        seconds: float,
        rate: float = 0.0,
        callers: int = 0,
        deadline: float,
        distinct: bool = True,
    ) -> list[Call]:
        """Ask `rate` questions a second or, without one, as many as `callers` can who each
        wait for their answer."""
        asking = (
            at_a_rate(rate, seconds, deadline, distinct)
            if rate
            else in_turn(callers, seconds, deadline, distinct)
        )
        return uvloop.run(asking)

    return answer


if __name__ == "__main__":
    serve(open_worker)
