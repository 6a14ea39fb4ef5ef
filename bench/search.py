"""Searches of the retriever: against the same SQL through bare psycopg, and against comparing
all vectors."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import secrets
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector_async

from bench.calls import p50_milliseconds
from bench.corpus import documents
from bench.database import SEE_ROWS, database_url
from bench.figures import Figure, alone, compared
from bench.run import Run
from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from quintet_local.supervisor import Stack
from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.search_sql import index_settings, search_statement
from quintet_retriever.settings import Settings

DIMENSION = 384
CENTRES = 500
WORDS_A_CHUNK = 85
CHUNKS_A_DOCUMENT = 10
WRITERS, DOCUMENTS_A_CALL = 4, 20
"""Inserting into the index takes nearly all of the time until the first search: several
writers share the cores."""
K = 10
REVISION = "r1"
BARE = "the same SQL through psycopg"
_SEED = 17


async def bench(run: Run) -> list[Figure]:
    """Measure milliseconds, and how many of the nearest the index finds."""
    chunks = run.size(100_000, 300)
    numbers, chosen = np.random.default_rng(_SEED), random.Random(_SEED)
    centres = numbers.normal(size=(CENTRES, DIMENSION))
    vectors = _near(numbers, centres, chunks)
    # Words alone: what stands in quotation marks would have to be in each hit.
    words = re.findall(r"\w+", " ".join(documents(200_000).values()))
    texts = [_sentence(chosen, words, WORDS_A_CHUNK) for _ in range(chunks)]
    async with run.stack() as stack, AsyncExitStack() as resources:
        channel = grpc.aio.insecure_channel(stack.endpoints["retriever"]["grpc"])
        stub: Any = RetrieverServiceStub(await resources.enter_async_context(channel))
        run.say(f"{chunks} chunks come in")
        collection = await _filled(stub, texts, vectors)
        connection = await resources.enter_async_context(await _bare(stack))
        key = await _key(connection, collection)
        questions = itertools.cycle(
            (_sentence(chosen, words, 8), vector) for vector in _near(numbers, centres, 200)
        )
        calls = run.size(50, 3)

        async def served() -> float:
            async def once() -> None:
                text, vector = next(questions)
                await stub.Search(_request(collection, text, vector))

            return await p50_milliseconds(once, calls)

        async def bare() -> float:
            async def once() -> None:
                text, vector = next(questions)
                query = SearchQuery(Mode.HYBRID, text, vector, K, None)
                prepare, search = (
                    index_settings(Settings()),
                    search_statement(key, query, Settings()),
                )
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(prepare.sql, prepare.parameters)
                    cursor = await connection.execute(search.sql, search.parameters)
                    await connection.execute("COMMIT")
                # Where there is no hit there is a row all the same.
                assert len(await cursor.fetchall()) > 1

            return await p50_milliseconds(once, calls)

        found = await run.interleaved({"hybrid": served, BARE: bare})
        recall = await _recall(stub, collection, vectors, _near(numbers, centres, calls))
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=collection))
    name = f"search: hybrid over {chunks:,} chunks, p50"
    return [
        compared(name, "ms", found["hybrid"], BARE, found[BARE], at_most=1.3),
        alone(f"search: recall@{K} of {chunks:,} chunks", "", [recall], at_least=0.99),
    ]


def _near(
    numbers: np.random.Generator, centres: NDArray[np.float64], count: int
) -> NDArray[np.float32]:
    """Return vectors of length 1 around the centres, as embeddings of a corpus are."""
    rows = centres[numbers.integers(0, len(centres), count)]
    found = rows + 0.7 * numbers.normal(size=rows.shape)
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def _sentence(chosen: random.Random, words: list[str], length: int) -> str:
    start = chosen.randrange(len(words) - length)
    return " ".join(words[start : start + length])


async def _filled(stub: Any, texts: list[str], vectors: NDArray[np.float32]) -> str:
    name = f"bench-{secrets.token_hex(6)}"
    await stub.CreateCollection(
        pb.CreateCollectionRequest(
            name=name, embedding_model="m", embedding_revision=REVISION, dimension=DIMENSION
        )
    )
    writers = asyncio.Semaphore(WRITERS)

    async def write(first: int) -> None:
        last = min(first + CHUNKS_A_DOCUMENT * DOCUMENTS_A_CALL, len(texts))
        async with writers:
            batch = [
                _document(row, texts, vectors) for row in range(first, last, CHUNKS_A_DOCUMENT)
            ]
            await stub.UpsertDocuments(pb.UpsertDocumentsRequest(collection=name, documents=batch))

    calls = range(0, len(texts), CHUNKS_A_DOCUMENT * DOCUMENTS_A_CALL)
    await asyncio.gather(*map(write, calls))
    return name


def _document(first: int, texts: list[str], vectors: NDArray[np.float32]) -> pb.DocumentInput:
    """Return the document whose chunks are the rows from `first` on."""
    chunks, start = [], 0
    for row in range(first, min(first + CHUNKS_A_DOCUMENT, len(texts))):
        end = start + len(texts[row])
        chunks.append(
            pb.Chunk(
                text=texts[row],
                start=start,
                end=end,
                tokens=WORDS_A_CHUNK,
                vector=vectors[row].tobytes(),
            )
        )
        start = end + 1
    return pb.DocumentInput(
        id=str(first), content="\n".join(chunk.text for chunk in chunks), chunks=chunks
    )


def _request(collection: str, text: str, vector: NDArray[np.float32]) -> pb.SearchRequest:
    return pb.SearchRequest(collection=collection, text=text, vector=vector.tobytes(), k=K)


async def _bare(stack: Stack) -> psycopg.AsyncConnection:
    connection = await psycopg.AsyncConnection.connect(database_url(stack), autocommit=True)
    await connection.execute("SET jit = off")
    await connection.execute(SEE_ROWS)
    await register_vector_async(connection)
    return connection


async def _key(connection: psycopg.AsyncConnection, collection: str) -> CollectionKey:
    cursor = await connection.execute(
        "SELECT id FROM retriever.collection WHERE name = %s", [collection]
    )
    row = await cursor.fetchone()
    assert row is not None
    return CollectionKey(row[0], REVISION, DIMENSION)


async def _recall(
    stub: Any, collection: str, vectors: NDArray[np.float32], questions: NDArray[np.float32]
) -> float:
    found = 0
    for vector in questions:
        response = await stub.Search(_request(collection, "", vector))
        nearest = np.argpartition(-(vectors @ vector), K)[:K]
        rows = {int(hit.document_id) + hit.chunk_index for hit in response.hits}
        found += len(set(nearest.tolist()) & rows)
    return found / (K * len(questions))
