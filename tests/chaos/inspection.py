"""Looks at all documents of a run, by every way in which they can be found, and at the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg
from psycopg import sql
from support.gateway import reason
from support.stack import TestStack

from chaos.processes import family, in_folder, with_environment
from chaos.shelf import Shelf, Shelved, Text
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_local.supervisor import SERVICES

_AT_ONCE = 4
_EMBEDDED_AT_ONCE = 16
_NEAREST = 10
"""Hits among which a chunk must be that is searched for by its own vector: the index
over many is approximate."""
_OUTBOX_SECONDS = 20.0
_WAIT = 20.0


@dataclass(frozen=True)
class Stubs:
    """Whom an inspection asks."""

    gateway: Any
    retriever: Any
    embedder: Any


async def inspect(shelf: Shelf, stubs: Stubs, dsn: str) -> list[str]:
    """Return all that is wrong with documents and tables; each document's state is known
    afterwards."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(document: Shelved) -> list[str]:
        async with gate:
            return await _look(document, stubs.gateway)

    wrong = [each for found in await asyncio.gather(*map(look, shelf.documents)) for each in found]
    there = {it.id: it.may_be[0] for it in shelf.documents if it.may_be[0] is not None}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for name in shelf.collections:
            ids = {it.id for it in shelf.documents if it.collection == name} & there.keys()
            chunks, found = await _tables(connection, name, {it: there[it] for it in ids})
            wrong += found
            wrong += await _not_found_by_vector(name, chunks, stubs)
        wrong += await _outbox(connection)
    return wrong


async def _look(document: Shelved, gateway: Any) -> list[str]:
    """Return what is wrong with a document; take down what it is."""
    name = f"{document.collection}/{document.id}"
    request = pb.GetDocumentRequest(
        collection=document.collection, id=document.id, include_content=True
    )
    try:
        content = (await gateway.GetDocument(request, timeout=_WAIT)).document.content
    except grpc.aio.AioRpcError as error:
        if reason(error) != "DOCUMENT_NOT_FOUND":
            return [f"{name}: {reason(error)}"]
        wrong = [] if None in document.may_be else [f"{name} is acknowledged and not there"]
        document.may_be = [None]
        return wrong
    texts = [it for it in document.may_be if it is not None and it.content == content]
    if not texts:
        return [f"{name} is none of what it may be: {content[:80]!r}"]
    document.may_be = [*texts]
    search = pb.SearchRequest(
        collection=document.collection,
        query=texts[0].marker,
        k=3,
        mode=retriever_pb.SEARCH_MODE_LEXICAL,
    )
    hits = (await gateway.Search(search, timeout=_WAIT)).hits
    if {hit.document_id for hit in hits} != {document.id}:
        return [f"{name} is not what its word {texts[0].marker} finds"]
    return []


async def _tables(
    connection: psycopg.AsyncConnection[Any], name: str, there: dict[str, Text]
) -> tuple[dict[str, str], list[str]]:
    """Return a chunk's text of each document, and what is wrong with a collection's tables."""
    row = await _rows(
        connection,
        sql.SQL("SELECT id, document_count, chunk_count FROM retriever.collection WHERE name = {}"),
        sql.Literal(name),
    )
    ((number, documents, chunks),) = row
    document_table = sql.Identifier("retriever", f"document_{number}")
    chunk_table = sql.Identifier("retriever", f"chunk_{number}")
    rows = await _rows(
        connection,
        sql.SQL(
            "SELECT d.id, d.chunk_count, c.start_char, c.end_char, c.text FROM {} AS c"
            " LEFT JOIN {} AS d ON d.key = c.document_key ORDER BY c.document_key, c.chunk_index"
        ),
        chunk_table,
        document_table,
    )
    ids = [it[0] for it in await _rows(connection, sql.SQL("SELECT id FROM {}"), document_table)]
    wrong = []
    if (len(ids), len(rows)) != (documents, chunks):
        wrong.append(f"{name} counts {documents} and {chunks}, and has {len(ids)} and {len(rows)}")
    if set(ids) != there.keys():
        wrong.append(f"{name} has {sorted(set(ids) ^ there.keys())} or lacks them")
    pieces: dict[str, list[tuple[int, int, int, str]]] = {}
    for document, *piece in rows:
        pieces.setdefault(document, []).append((piece[0], piece[1], piece[2], piece[3]))
    for document, text in there.items():
        wrong += _not_whole(f"{name}/{document}", text.content, pieces.pop(document, []))
    wrong += [f"{name} has chunks of no document" for _ in pieces]
    return {row[0]: row[4] for row in rows if row[0] in there}, wrong


def _not_whole(
    name: str, content: str, pieces: Sequence[tuple[int, int, int, str]]
) -> Iterator[str]:
    """Yield what is wrong with a document's chunks: their number, first and last character, and
    text."""
    if not pieces or any(number != len(pieces) for number, *_ in pieces):
        yield f"{name} has {len(pieces)} chunks"
    if any(content[start:end] != text for _, start, end, text in pieces):
        yield f"{name} has a chunk that is not of its content"
    covered = 0
    for _, start, end, _ in pieces:
        if content[covered:start].strip():
            yield f"{name} lacks a chunk"
        covered = max(covered, end)
    if content[covered:].strip():
        yield f"{name} lacks its last chunk"


async def _not_found_by_vector(name: str, chunks: dict[str, str], stubs: Stubs) -> list[str]:
    wrong: list[str] = []
    items = list(chunks.items())
    for place in range(0, len(items), _EMBEDDED_AT_ONCE):
        some = items[place : place + _EMBEDDED_AT_ONCE]
        request = embedder_pb.EmbedRequest(
            texts=[text for _, text in some], input_type=embedder_pb.INPUT_TYPE_PASSAGE
        )
        embedded = await stubs.embedder.Embed(request, timeout=_WAIT)
        for (document, _), embedding in zip(some, embedded.embeddings, strict=True):
            search = retriever_pb.SearchRequest(
                collection=name,
                vector=embedding.vector,
                k=_NEAREST,
                mode=retriever_pb.SEARCH_MODE_DENSE,
            )
            hits = (await stubs.retriever.Search(search, timeout=_WAIT)).hits
            if document not in {hit.document_id for hit in hits}:
                wrong.append(f"{name}/{document} is not found by its vector")
    return wrong


async def _outbox(connection: psycopg.AsyncConnection[Any]) -> list[str]:
    statement = sql.SQL("SELECT count(*) FROM retriever.outbox")
    try:
        async with asyncio.timeout(_OUTBOX_SECONDS):
            # The relay tells of no event.
            while (await _rows(connection, statement))[0][0]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    except TimeoutError:
        return ["something stays in the outbox"]
    return []


async def _rows(
    connection: psycopg.AsyncConnection[Any], statement: sql.SQL, *parts: sql.Composable
) -> list[Any]:
    cursor = await connection.execute(statement.format(*parts))
    return await cursor.fetchall()


def orphans(stack: TestStack) -> list[str]:
    """Return the processes of a stack that its supervisor knows nothing of."""
    found: list[str] = []
    for name in SERVICES:
        port = stack.endpoints[name]["grpc"].rpartition(":")[2]
        running = with_environment(f"QUINTET_{name.upper()}_PORT={port}")
        found += [f"{name} {pid}" for pid in running - {*family(stack.pid(name))}]
    for name, folder in (("postgres", "postgres/data"), ("valkey", "valkey")):
        running = in_folder(Path(stack.state_dir) / folder)
        found += [f"{name} {pid}" for pid in running - {*family(stack.pid(name))}]
    return found
