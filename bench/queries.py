"""What a query waits for its vector beside a bulk ingest, and what the ingest loses."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import grpc

from bench.calls import COUNT_ECHO
from bench.corpus import passages
from bench.embedder import engine_in_process
from bench.figures import Figure, Samples, alone, compared, exceeding
from bench.run import Run, in_turn
from bench.worker import Worker
from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub

QUERY_EVERY = 0.1
"""Seconds between queries: few enough that the bulk ingest hardly loses arithmetic."""


async def bench(run: Run) -> list[Figure]:
    """Measure milliseconds, and texts a second beside them."""
    async with (
        engine_in_process(run) as in_process,
        run.worker("echo_server", *COUNT_ECHO) as echo,
        run.service("embedder") as address,
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(await echo()) as echo_channel,
    ):
        stub, empty = EmbedderServiceStub(channel), TokenizerServiceStub(echo_channel)
        return await _beside_bulk(run, stub, empty, in_process, address)


async def _beside_bulk(
    run: Run, stub: Any, echo: Any, in_process: Worker, address: str
) -> list[Figure]:
    seconds = run.size(8, 1) / 2
    query = passages(12, 1)
    beside: list[float] = []

    async def one_query() -> float:
        began = time.perf_counter()
        await stub.Embed(pb.EmbedRequest(texts=query, input_type=pb.INPUT_TYPE_QUERY))
        return (time.perf_counter() - began) * 1000

    async def quiet() -> float:
        # With the same pauses: a processor that has slept computes no faster for us.
        turns = max(1, round(seconds / 2 / QUERY_EVERY))
        waits: list[float] = await in_process(
            texts=query, plan="whole", repeat=turns, pause=QUERY_EVERY
        )
        return statistics.median(waits) * 1000

    async def over_grpc() -> float:
        return statistics.median(await in_turn(seconds / 2, QUERY_EVERY, one_query))

    async def one_empty_call() -> float:
        began = time.perf_counter()
        await echo.Count(tokenizer_pb.CountRequest(texts=query))
        return (time.perf_counter() - began) * 1000

    async def empty_calls() -> float:
        return statistics.median(await in_turn(seconds / 2, QUERY_EVERY, one_empty_call))

    async with run.worker("bulk_client", address) as bulk:

        async def bulk_alone() -> float:
            return float(await bulk(seconds=seconds))

        async def both() -> float:
            running = asyncio.create_task(bulk(seconds=seconds))
            await asyncio.sleep(seconds / 10)
            waits = await in_turn(seconds * 0.8, QUERY_EVERY, one_query)
            beside.append(statistics.median(waits))
            return float(await running)

        found = await run.interleaved(
            {
                "query in process": quiet,
                "query over gRPC": over_grpc,
                "empty call": empty_calls,
                "bulk alone": bulk_alone,
                "bulk and queries": both,
            }
        )
    waits: Samples = beside[-run.rounds :]
    return [
        exceeding(
            "queries: p50 of a lone 12-token query beside a bulk ingest",
            "ms",
            waits,
            "OpenVINO in process, nothing beside it",
            found["query in process"],
            at_most=1.5,
        ),
        compared(
            "queries: p50 of a lone 12-token query, nothing beside it",
            "ms",
            found["query over gRPC"],
            "OpenVINO in process",
            found["query in process"],
        ),
        alone(
            "queries: p50 of a bare grpc.aio echo with the same pauses", "ms", found["empty call"]
        ),
        compared(
            "queries: bulk ingest beside queries",
            "texts/s",
            found["bulk and queries"],
            "the same without queries",
            found["bulk alone"],
            at_least=0.85,
        ),
        alone("queries: bulk ingest alone", "texts/s", found["bulk alone"]),
    ]
