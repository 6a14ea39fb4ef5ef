"""A client that embeds passages in bulk as fast as the embedder takes them.

    python -m bench.workers.bulk_client ADDRESS

Four requests of 64 texts are always under way, as in an ingest. A process of its own,
so that a query's client beside it never waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any

import grpc

from bench.corpus import passages
from bench.workers.serving import Answer, serve
from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub

BATCH = 64
IN_FLIGHT = 4


def open_worker() -> Answer:
    """Make the texts ready."""
    texts = passages(128, 512)
    batches = itertools.cycle(texts[at : at + BATCH] for at in range(0, len(texts), BATCH))

    async def bulk(seconds: float) -> float:
        done, until = [0], time.perf_counter() + seconds
        async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
            stub: Any = EmbedderServiceStub(channel)

            async def one_after_the_other() -> None:
                while time.perf_counter() < until:
                    await stub.Embed(pb.EmbedRequest(texts=next(batches)))
                    done[0] += BATCH

            began = time.perf_counter()
            await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
        return done[0] / (time.perf_counter() - began)

    def texts_per_second(seconds: float) -> float:
        return asyncio.run(bulk(seconds))

    return texts_per_second


if __name__ == "__main__":
    serve(open_worker)
