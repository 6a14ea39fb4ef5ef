"""Whether kept answers outlive writes: repeatable questions to a collection of 10,000
documents of which one is written each second.

A question hits when its kept answer is served, be it after the database was asked whether
the writes since concern it. Every twentieth answer is held against what the same question
gets with no cache at that very moment, while no write is under way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import grpc

from bench.corpus import documents, questions
from bench.figures import Figure, alone
from bench.run import Run
from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from quintet_local.supervisor import Stack, running_stack

COLLECTION = "bench-freshness"
LENGTHS = (16, 20, 24)
"""Words of the documents: each length cuts the reference into others."""
BATCH = 64
"""Documents a request, the retriever's most."""
PAUSE_SECONDS = 0.05
"""Between two questions: each of 200 is asked again after some ten writes."""
WRITE_SECONDS = 1.0
VERIFIED = 20
"""Every so manieth answer is verified."""

_NAMES = {
    cache_pb.CACHE_OUTCOME_HIT: "hit",
    cache_pb.CACHE_OUTCOME_REVALIDATED: "revalidated",
    cache_pb.CACHE_OUTCOME_MISS: "miss",
}


@dataclass
class _Seen:
    """What was seen: seconds by outcome, hits of each ten seconds, and what was verified."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    verified: int = 0
    stale: int = 0
    writes: int = 0


async def bench(run: Run) -> list[Figure]:
    """Measure the share of hits, and what each kind of answer takes."""
    number, seconds = run.size(10_000, 300), run.size(60, 3)
    asked = questions(run.size(200, 10))
    run.say("the five services with their caches: starting")
    async with running_stack(run.folder / "cached") as stack, _Client.of(stack) as client:
        run.say(f"{number} documents: embedding and writing")
        texts = list(islice(_texts(), number + seconds + 10))
        await client.fill(texts[:number])
        run.say(f"{len(asked)} questions, each for the first time")
        for question in asked:
            await client.ask(question)
        run.say(f"asked again for {seconds} s, while a document a second is written")
        seen = _Seen()
        writing = asyncio.create_task(_write(client, texts[number:], number, seen))
        try:
            await _ask(client, asked, seconds, seen)
        finally:
            writing.cancel()
    return _figures(seen, number)


def _figures(seen: _Seen, number: int) -> list[Figure]:
    shares = [100 * sum(it) / len(it) for it in seen.hits.values()]
    title = f"freshness: {number} documents, one written a second"
    found = [
        alone(f"{title}, repeated questions served a kept answer", "%", shares, at_least=90),
        alone(
            f"{title}, stale ones of {seen.verified} that were verified",
            "answers",
            [float(seen.stale)],
            at_most=0,
        ),
    ]
    for outcome in _NAMES.values():
        if taken := seen.seconds[outcome]:
            what = f"{title}, time of a {outcome} ({len(taken)})"
            found.append(alone(what, "ms", [1000 * it for it in taken]))
    return found


async def _ask(client: _Client, asked: Sequence[str], seconds: float, seen: _Seen) -> None:
    began = time.monotonic()
    for number, question in enumerate(cycle(asked)):
        since = time.monotonic() - began
        if since > seconds:
            return
        async with client.writing if number % VERIFIED == 0 else _free():
            before = time.perf_counter()
            answer = await client.ask(question)
            taken = time.perf_counter() - before
            if number % VERIFIED == 0:
                seen.verified += 1
                seen.stale += not _same(answer, await client.ask(question, fresh=True))
        outcome = _NAMES.get(answer.cache.use.outcome, "miss")
        seen.seconds[outcome].append(taken)
        seen.hits[int(since // 10)].append(outcome != "miss")
        await asyncio.sleep(PAUSE_SECONDS)


async def _write(client: _Client, texts: Sequence[str], number: int, seen: _Seen) -> None:
    """Replace a document chosen at random each second, or add one in every other."""
    rng = random.Random(1)
    for written, text in enumerate(texts):
        which = rng.randrange(number) if written % 2 else number + written
        async with client.writing:
            await client.put(f"d{which}", text)
        seen.writes += 1
        await asyncio.sleep(WRITE_SECONDS)


def _same(kept: pb.AskResponse, fresh: pb.AskResponse) -> bool:
    def shown(response: pb.AskResponse) -> list[tuple[str, int, str]]:
        hits = [passage.hit for passage in response.passages]
        return [(hit.document_id, hit.document_version, hit.text) for hit in hits]

    return kept.answer == fresh.answer and shown(kept) == shown(fresh)


def _texts() -> Iterator[str]:
    """Yield different short texts of the reference."""
    words = [text.split() for text in documents(10_000_000).values()]
    told: set[str] = set()
    for length in LENGTHS:
        for its in words:
            for first in range(0, len(its) - length + 1, length):
                text = " ".join(its[first : first + length])
                if text not in told:
                    told.add(text)
                    yield text


@asynccontextmanager
async def _free() -> AsyncIterator[None]:
    yield


class _Client:
    """A caller; who holds `writing` knows that nobody else writes."""

    def __init__(self, gateway: Any, embedder: Any, retriever: Any) -> None:
        self.writing = asyncio.Lock()
        self._gateway = gateway
        self._embedder = embedder
        self._retriever = retriever

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack) -> AsyncIterator[_Client]:
        """Yield a caller of a stack."""
        async with (
            grpc.aio.insecure_channel(stack.gateway) as gateway,
            grpc.aio.insecure_channel(stack.endpoints["embedder"]["grpc"]) as embedder,
            grpc.aio.insecure_channel(stack.endpoints["retriever"]["grpc"]) as retriever,
        ):
            yield cls(
                GatewayServiceStub(gateway),
                EmbedderServiceStub(embedder),
                RetrieverServiceStub(retriever),
            )

    async def fill(self, texts: Sequence[str]) -> None:
        """Make the collection, of a chunk a document."""
        await self._gateway.CreateCollection(pb.CreateCollectionRequest(name=COLLECTION))
        for first in range(0, len(texts), BATCH):
            batch = texts[first : first + BATCH]
            embedded = await self._embedder.Embed(embedder_pb.EmbedRequest(texts=batch))
            documents = [
                retriever_pb.DocumentInput(
                    id=f"d{first + place}",
                    content=text,
                    chunks=[
                        retriever_pb.Chunk(
                            text=text,
                            end=len(text),
                            tokens=embedding.tokens,
                            vector=embedding.vector,
                        )
                    ],
                )
                for place, (text, embedding) in enumerate(
                    zip(batch, embedded.embeddings, strict=True)
                )
            ]
            await self._retriever.UpsertDocuments(
                retriever_pb.UpsertDocumentsRequest(
                    collection=COLLECTION,
                    documents=documents,
                    embedding_revision=embedded.revision,
                )
            )

    async def put(self, identifier: str, text: str) -> None:
        """Write a document and wait for its acknowledgement."""
        document = pb.Document(id=identifier, content=text)
        request = pb.IngestRequest(collection=COLLECTION, document=document)
        async for response in self._gateway.Ingest(iter([request])):
            if response.HasField("refused"):
                raise RuntimeError(f"{identifier}: {response.refused.message}")

    async def ask(self, question: str, *, fresh: bool = False) -> pb.AskResponse:
        """Return the answer; a fresh one is made anew from the database."""
        request = pb.AskRequest(collection=COLLECTION, question=question)
        if fresh:
            request.cache = pb.CACHE_POLICY_NONE
            request.consistency.fully_consistent = True
        response: pb.AskResponse = await self._gateway.Ask(request)
        return response
