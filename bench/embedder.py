"""The embedder's throughput across callers; `queries` has its latency."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from bench.corpus import passages
from bench.figures import Figure, compared
from bench.http_client import seconds_one_by_one
from bench.limits import PASSAGE_GFLOP
from bench.peers import MissingPeerError, python_of
from bench.run import Contender, Run
from bench.worker import Worker, WorkerError
from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet_embedder.checkpoint import read_checkpoint
from quintet_embedder.openvino_backend import MODEL_FILE
from quintet_embedder.prepare import converted_folder
from quintet_embedder.settings import Settings, model_folder

CALLERS = 256

OURS = "256 callers of one text each"
STREAMS = "OpenVINO in process, a stream a core"
WHOLE = "OpenVINO in process, one stream"
REFERENCE = "sentence-transformers fp32 in process"
INFINITY_SERVER = "infinity-emb 0.0.78's server in bf16, 256 callers"
INFINITY = "infinity-emb 0.0.78 in bf16 in process, 256 concurrent calls"
LIMIT = "bf16 arithmetic"


async def bench(run: Run) -> list[Figure]:
    """Measure texts a second."""
    async with AsyncExitStack() as stack:
        in_process = await stack.enter_async_context(engine_in_process(run))
        address = await stack.enter_async_context(run.service("embedder"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub: Any = EmbedderServiceStub(channel)
        return await _throughput(run, stub, in_process, str(model_folder(Settings())))


@asynccontextmanager
async def engine_in_process(run: Run) -> AsyncIterator[Worker]:
    """Run the service's engine, on the very model that it serves, without the service."""
    settings = Settings()
    async with run.worker(
        "openvino_embedder",
        str(converted_folder(settings) / MODEL_FILE),
        str(read_checkpoint(model_folder(settings)).tokenizer_file),
        "bf16",
    ) as worker:
        yield worker


async def _throughput(run: Run, stub: Any, in_process: Worker, model: str) -> list[Figure]:
    # Enough that the first and the last batches, which are not full, weigh little.
    texts = passages(128, run.size(512, 32))
    few = texts[: run.size(CALLERS, 16)]
    missing: dict[str, str] = {}

    async def ours() -> float:
        return len(texts) / await _one_by_one(stub, texts)

    async def openvino(plan: str) -> float:
        [seconds] = await in_process(texts=texts, plan=plan)
        return len(texts) / float(seconds)

    contenders: dict[str, Contender] = {
        OURS: ours,
        STREAMS: lambda: openvino("streams"),
        WHOLE: lambda: openvino("whole"),
    }
    async with AsyncExitStack() as stack:
        if not run.quick:
            gemm = await stack.enter_async_context(run.worker("gemm"))

            async def limit() -> float:
                return float(await gemm(precision="bfloat16", seconds=0.7)) / PASSAGE_GFLOP

            contenders[LIMIT] = limit
            reference = await stack.enter_async_context(
                run.worker("sentence_transformers_embedder", model)
            )

            async def fp32() -> float:
                half = few[: CALLERS // 2]
                return len(half) / float(await reference(texts=half))

            contenders[REFERENCE] = fp32
        if run.peers:
            try:
                python = await python_of("infinity", run.say)
                engine = await stack.enter_async_context(
                    run.worker("infinity_embedder", model, python=python)
                )
                server = await stack.enter_async_context(
                    run.worker("infinity_server", model, python=python)
                )
                port = int(await server())

                async def infinity() -> float:
                    return len(few) / float(await engine(texts=few, concurrency=CALLERS))

                async def infinity_served() -> float:
                    return len(few) / await seconds_one_by_one(port, few, CALLERS)

                contenders |= {INFINITY: infinity, INFINITY_SERVER: infinity_served}
            except (MissingPeerError, WorkerError) as error:
                missing = dict.fromkeys((INFINITY, INFINITY_SERVER), str(error))
        found = await run.interleaved(contenders)

    def against(name: str, at_least: float) -> Figure:
        other = missing.get(name, f"{name}: not run")
        theirs = found.get(name)
        shown = name if theirs else other
        return compared(
            f"embedder: {OURS}, by {name.partition(',')[0]}",
            "texts/s",
            found[OURS],
            shown,
            theirs,
            at_least=at_least,
        )

    # Whichever way to run it in one process is faster here is what we are held to.
    best = max(STREAMS, WHOLE, key=lambda name: statistics.median(found[name]))
    return [
        against(best, 0.9),
        against(INFINITY_SERVER, 1.5),
        against(INFINITY, 1.5),
        against(REFERENCE, 2.2),
        against(LIMIT, 0.8),
    ]


async def _one_by_one(stub: Any, texts: list[str]) -> float:
    """Embed each text in a call of its own, `CALLERS` at once; return the seconds."""
    waiting = iter(texts)

    async def caller() -> None:
        for text in waiting:
            await stub.Embed(pb.EmbedRequest(texts=[text], input_type=pb.INPUT_TYPE_PASSAGE))

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return time.perf_counter() - began
