"""Kept answers: a hit against an empty call, and against the answer that it spares."""

from __future__ import annotations

import asyncio
import itertools
import re
import statistics
import time
import urllib.request
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bench.calls import p50_milliseconds, per_second
from bench.corpus import documents, questions
from bench.figures import Figure, alone, compared
from bench.ingest import ingest
from bench.run import Run
from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import Stack

COLLECTION = "reference"
MODEL = "smollm2-135m-instruct"
CALLERS = 32
TOGETHER = 1_000
SERVICE = "quintet.gateway.v1.GatewayService"


async def bench(run: Run) -> list[Figure]:
    """Measure a hit's milliseconds, hits a second, and what equal questions at once cost."""
    async with run.cached_stack() as stack, grpc.aio.insecure_channel(stack.gateway) as channel:
        await ingest(stack, documents(run.size(150_000, 3_000)), COLLECTION)
        stub: Any = GatewayServiceStub(channel)
        asked = iter(questions(run.size(200, 40)))
        request = pb.AskRequest(collection=COLLECTION, question=next(asked), abstain_below=0)
        await stub.Ask(request)
        kept = await stub.Ask(request)
        assert kept.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT, kept.cache
        payload = b64encode(kept.SerializeToString()).decode()
        async with (
            run.worker("echo_server", SERVICE, "Ask", payload) as echo,
            grpc.aio.insecure_channel(await echo()) as echo_channel,
        ):
            found = await _hits(run, stub, GatewayServiceStub(echo_channel), request)
        found += await _cold(run, stub, asked, request)
        found.append(await _at_once(run, stack, stub, asked))
    return found


async def _hits(run: Run, stub: Any, echo: Any, request: pb.AskRequest) -> list[Figure]:
    calls, seconds = run.size(1_000, 50), run.size(3, 1)

    def hit() -> Awaitable[object]:
        return stub.Ask(request)  # type: ignore[no-any-return]

    def nothing() -> Awaitable[object]:
        return echo.Ask(request)  # type: ignore[no-any-return]

    times = await run.interleaved(
        {
            "echo": lambda: p50_milliseconds(nothing, calls),
            "hit": lambda: p50_milliseconds(hit, calls),
        }
    )
    rates = await run.interleaved(
        {
            "echo": lambda: per_second(nothing, seconds, CALLERS),
            "hit": lambda: per_second(hit, seconds, CALLERS),
        }
    )
    return [
        alone("answers: p50 of a kept answer", "ms", times["hit"], at_most=1.0),
        compared(
            "answers: p50 of a kept answer, by an echo",
            "ms",
            times["hit"],
            "bare grpc.aio echo of the same message",
            times["echo"],
        ),
        compared(
            f"answers: kept answers, {CALLERS} callers",
            "answers/s",
            rates["hit"],
            "bare grpc.aio echo of the same message",
            rates["echo"],
            at_least=0.5,
        ),
    ]


async def _cold(run: Run, stub: Any, asked: Any, request: pb.AskRequest) -> list[Figure]:
    """Compare hits with new answers: of the language model, as long as they come by
    default, and of the extractive backend."""

    def contender(model: str, number: int) -> Callable[[], Awaitable[float]]:
        async def cold() -> float:
            waits = []
            for question in itertools.islice(asked, number):
                # 0: as many tokens as an answer has by default.
                new = pb.AskRequest(
                    collection=COLLECTION,
                    question=question,
                    model=model,
                    max_tokens=run.size(0, 8),
                    abstain_below=0,
                )
                began = time.perf_counter()
                await stub.Ask(new)
                waits.append((time.perf_counter() - began) * 1000)
            return statistics.median(waits)

        return cold

    async def hit() -> float:
        return await p50_milliseconds(lambda: stub.Ask(request), run.size(300, 20))

    times = await run.interleaved(
        {
            "language model": contender(MODEL, run.size(3, 1)),
            "extractive": contender("extractive", run.size(10, 2)),
            "hit": hit,
        }
    )
    return [
        compared(
            "answers: a new answer, by a kept one",
            "ms",
            times["language model"],
            "a kept answer",
            times["hit"],
            at_least=2_000,
        ),
        compared(
            "answers: a new extractive answer, by a kept one",
            "ms",
            times["extractive"],
            "a kept answer",
            times["hit"],
        ),
    ]


async def _at_once(run: Run, stack: Stack, stub: Any, asked: Any) -> Figure:
    together = run.size(TOGETHER, 20)

    async def once() -> float:
        question = next(asked)
        request = pb.AskRequest(collection=COLLECTION, question=question, max_tokens=24)
        request.model = MODEL
        request.abstain_below = 0
        before = await asyncio.to_thread(_generated, stack)
        await asyncio.gather(*(stub.Ask(request) for _ in range(together)))
        return await asyncio.to_thread(_generated, stack) - before

    runs = await run.interleaved({"at once": once}, warm_up=False)
    return alone(
        f"answers: runs of the generator for {together} equal new questions at once",
        "runs",
        runs["at once"],
        at_most=1,
    )


def _generated(stack: Stack) -> float:
    """Return how often the generator was called."""
    with urllib.request.urlopen(stack.endpoints["generator"]["metrics"]) as page:
        text = page.read().decode()
    started = r'^grpc_server_started_total\{[^}]*"GenerateStream"[^}]*\} (\S+)$'
    return sum(map(float, re.findall(started, text, re.MULTILINE)))
