"""Whether kept answers outlive writes: repeatable questions to a collection of 10,000
documents of which one is written each second.

A question hits when its kept answer is served, be it after the database was asked whether
the writes since concern it. Every twentieth answer is held against what the same question
gets with no cache at that very moment, while no write is under way: it is stale if the
two differ by a document that was written. They may differ otherwise, for beyond 2,000
chunks the index of vectors is approximate, and each insertion may change what it finds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
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
from quintet_local.supervisor import Stack

COLLECTION = "bench-freshness"
LENGTHS = (14, 18, 22)
"""Words of the documents: each length cuts the reference into others."""
MOST_CHARACTERS = 200
"""Of a document: even what is drawn of hyphens then fits into the embedding model."""
BATCH = 64
"""Documents a request, the retriever's most."""
PAUSE_SECONDS = 0.05
"""Between two questions: each of 200 is asked again after some ten writes."""
WRITE_SECONDS = 1.0
VERIFIED = 20
"""Every so manieth answer is verified."""

_KEPT = (cache_pb.CACHE_OUTCOME_HIT, cache_pb.CACHE_OUTCOME_REVALIDATED)
_NAMES = {
    cache_pb.CACHE_OUTCOME_HIT: "a hit",
    cache_pb.CACHE_OUTCOME_REVALIDATED: "a kept answer that the database was asked about",
    cache_pb.CACHE_OUTCOME_MISS: "a new answer",
}


@dataclass
class _Seen:
    """What was seen: seconds by outcome, hits of each ten seconds, and what was verified."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    verified: int = 0
    stale: int = 0
    otherwise: int = 0
    written: list[str] = field(default_factory=list)


async def bench(run: Run) -> list[Figure]:
    """Measure the share of hits, and what each kind of answer takes."""
    number, seconds = run.size(10_000, 300), run.size(60, 3)
    asked = list(questions(run.size(200, 10)))
    async with run.cached_stack() as stack, _Client.of(stack) as client:
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
    served = alone("freshness: questions served a kept answer", "%", shares, at_least=90)
    otherwise = [float(seen.otherwise)]
    stale = alone("freshness: stale answers", "answers", [float(seen.stale)], at_most=0)
    found = [
        replace(served, compared_with=f"{number:,} documents, {len(seen.written)} writes"),
        replace(stale, compared_with=f"{seen.verified} were verified"),
        replace(
            alone("freshness: answers that the index now finds otherwise", "answers", otherwise),
            compared_with=f"{seen.verified} were verified",
        ),
    ]
    for outcome, name in _NAMES.items():
        if taken := [1000 * it for it in seen.seconds[outcome]]:
            figure = alone(f"freshness: time of {name}", "ms", taken)
            found.append(replace(figure, compared_with=f"{len(taken)} answers"))
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
                _compare(answer, await client.ask(question, fresh=True), seen)
        outcome = answer.cache.use.outcome
        seen.seconds[outcome].append(taken)
        seen.hits[int(since // 10)].append(outcome in _KEPT)
        if number % VERIFIED == VERIFIED // 2:
            # Once more at once, for the time of a hit alone: mostly nothing was written since.
            before = time.perf_counter()
            again = await client.ask(question)
            seen.seconds[again.cache.use.outcome].append(time.perf_counter() - before)
        await asyncio.sleep(PAUSE_SECONDS)


async def _write(client: _Client, texts: Sequence[str], number: int, seen: _Seen) -> None:
    """Replace a document chosen at random each second, or add one in every other."""
    rng = random.Random(1)
    for written, text in enumerate(texts):
        which = f"d{rng.randrange(number) if written % 2 else number + written}"
        async with client.writing:
            await client.put(which, text)
        seen.written.append(which)
        await asyncio.sleep(WRITE_SECONDS)


def _compare(kept: pb.AskResponse, fresh: pb.AskResponse, seen: _Seen) -> None:
    def shown(response: pb.AskResponse) -> list[tuple[str, int, str]]:
        hits = [passage.hit for passage in response.passages]
        return [(hit.document_id, hit.document_version, hit.text) for hit in hits]

    seen.verified += 1
    differing = set(shown(kept)) ^ set(shown(fresh))
    if any(document in seen.written for document, _, _ in differing):
        seen.stale += 1
    elif shown(kept) != shown(fresh) or kept.answer != fresh.answer:
        seen.otherwise += 1


def _texts() -> Iterator[str]:
    """Yield different short texts of the reference."""
    words = [text.split() for text in documents(10_000_000).values()]
    told: set[str] = set()
    for length in LENGTHS:
        for its in words:
            for first in range(0, len(its) - length + 1, length):
                text = " ".join(its[first : first + length])
                if text not in told and len(text) <= MOST_CHARACTERS:
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
        request = pb.AskRequest(collection=COLLECTION, question=question, abstain_below=0)
        if fresh:
            request.cache = pb.CACHE_POLICY_NONE
            request.consistency.fully_consistent = True
        response: pb.AskResponse = await self._gateway.Ask(request)
        return response
