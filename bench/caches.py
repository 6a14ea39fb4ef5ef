"""What the services keep: vectors, completions and counts, found against computed anew."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc

from bench.calls import p50_milliseconds
from bench.corpus import passages
from bench.figures import Figure, compared
from bench.run import Run
from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_generator.settings import PACKAGED_NAME
from quintet_local.valkey import running_valkey

TEXTS = 32
COUNTED = 64
NEW_TOKENS = 48
MEMORY = str(64 * 2**20)


async def bench(run: Run) -> list[Figure]:
    """Measure texts a second, and the milliseconds of an answer. A quick run has no caches."""
    async with running_valkey(run.folder / "valkey") as redis_url:
        figures = [
            await _vectors(run, "memory", QUINTET_EMBEDDER_CACHE__MEMORY_BYTES=MEMORY),
            await _vectors(run, "Redis", QUINTET_EMBEDDER_CACHE__REDIS_URL=redis_url),
        ]
    return [*figures, await _completion(run), await _counts(run)]


async def _vectors(run: Run, store: str, **settings: str) -> Figure:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(run.service("embedder", **settings))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub: Any = EmbedderServiceStub(channel)
        batches = _batches(TEXTS)
        kept = embedder_pb.EmbedRequest(texts=next(batches))
        await stub.Embed(kept)
        _require_hit(run, await stub.Embed(kept))

        async def computed() -> float:
            request = embedder_pb.EmbedRequest(texts=next(batches))
            began = time.perf_counter()
            await stub.Embed(request)
            return TEXTS / (time.perf_counter() - began)

        async def found() -> float:
            calls = run.size(200, 5)
            return TEXTS / await p50_milliseconds(lambda: stub.Embed(kept), calls) * 1000

        rates = await run.interleaved({"computed": computed, "found": found})
    return compared(
        f"caches: Embed of {TEXTS} kept texts of 128 tokens, from {store}",
        "texts/s",
        rates["found"],
        "computing them",
        rates["computed"],
        at_least=20,
    )


async def _completion(run: Run) -> Figure:
    settings = {"QUINTET_GENERATOR_CACHE__MEMORY_BYTES": MEMORY}
    async with (
        run.service("generator", **settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = GeneratorServiceStub(channel)
        batches = _batches(4)

        def request() -> generator_pb.GenerateRequest:
            return generator_pb.GenerateRequest(
                model=PACKAGED_NAME,
                question="What do these passages say? Retell all of them in full.",
                passages=[generator_pb.Passage(text=text) for text in next(batches)],
                max_tokens=run.size(NEW_TOKENS, 4),
            )

        kept = request()
        await stub.Generate(kept)
        _require_hit(run, await stub.Generate(kept))

        async def computed() -> float:
            new = request()
            return await p50_milliseconds(lambda: stub.Generate(new), 1)

        async def found() -> float:
            return await p50_milliseconds(lambda: stub.Generate(kept), run.size(300, 1))

        waits = await run.interleaved({"computed": computed, "found": found})
    return compared(
        "caches: Generate of a kept answer of 48 tokens",
        "ms",
        waits["found"],
        "generating it",
        waits["computed"],
    )


async def _counts(run: Run) -> Figure:
    settings = {"QUINTET_TOKENIZER_CACHE__MEMORY_BYTES": MEMORY}
    async with (
        run.service("tokenizer", **settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = TokenizerServiceStub(channel)
        batches = _batches(COUNTED)
        kept = tokenizer_pb.CountRequest(texts=next(batches))
        await stub.Count(kept)
        _require_hit(run, await stub.Count(kept))

        async def counted() -> float:
            waits = []
            for texts in itertools.islice(batches, run.size(20, 1)):
                new = tokenizer_pb.CountRequest(texts=texts)
                began = time.perf_counter()
                await stub.Count(new)
                waits.append(time.perf_counter() - began)
            return COUNTED * len(waits) / sum(waits)

        async def found() -> float:
            calls = run.size(300, 5)
            return COUNTED / await p50_milliseconds(lambda: stub.Count(kept), calls) * 1000

        rates = await run.interleaved({"counted": counted, "found": found})
    return compared(
        f"caches: Count of {COUNTED} kept texts of 128 tokens",
        "texts/s",
        rates["found"],
        "counting them",
        rates["counted"],
    )


def _batches(size: int) -> Iterator[list[str]]:
    """Yield texts that have not been used before, of some 128 tokens."""
    texts = itertools.cycle(passages(126, 800))
    for number in itertools.count():
        yield [f"{number} {text}" for text in itertools.islice(texts, size)]


def _require_hit(run: Run, response: Any) -> None:
    if not run.quick and response.cache.outcome != cache_pb.CACHE_OUTCOME_HIT:
        raise RuntimeError(f"nothing was kept: {response.cache}")
