"""Documents in, through all of Quintet: against the embedder's own throughput on the
same chunks, and against the same job written with LangChain."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import psycopg
from psycopg import sql

from bench.corpus import documents
from bench.database import database_url
from bench.figures import Figure, alone, compared
from bench.peers import MissingPeerError, python_of
from bench.run import Contender, Run
from bench.worker import WorkerError
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_embedder.settings import Settings, model_folder
from quintet_local.supervisor import Stack

OURS = "gateway's Ingest"
EMBEDDER = "the embedder on the same chunks"
LANGCHAIN = "LangChain with the same model and PostgreSQL"


async def bench(run: Run) -> list[Figure]:
    """Measure chunks a second."""
    async with run.stack() as stack, AsyncExitStack() as resources:
        return await _throughput(run, stack, resources)


async def _throughput(run: Run, stack: Stack, resources: AsyncExitStack) -> list[Figure]:
    texts = documents(run.size(120_000, 3_000))
    chunks = await _chunks(stack, texts)
    characters = sum(map(len, texts.values()))
    missing = ""

    async def ours() -> float:
        return len(chunks) / await ingest(stack, texts)

    async def embedder() -> float:
        return len(chunks) / await _embed(stack, chunks)

    contenders: dict[str, Contender] = {OURS: ours, EMBEDDER: embedder}
    if run.peers:
        try:
            python = await python_of("langchain", run.say)
            theirs = await resources.enter_async_context(
                run.worker(
                    "langchain_ingest",
                    str(model_folder(Settings())),
                    await _new_database(stack),
                    python=python,
                )
            )

            async def langchain() -> float:
                # In our chunks, for it cuts the same text into some of its own.
                return len(chunks) / float(await theirs(documents=texts))

            contenders[LANGCHAIN] = langchain
        except (MissingPeerError, WorkerError) as error:
            missing = str(error)
    found = await run.interleaved(contenders)
    name = "ingest: documents over the gateway"
    other = LANGCHAIN if LANGCHAIN in found else missing or f"{LANGCHAIN}: not run"
    return [
        compared(
            f"{name}, by the embedder alone",
            "chunks/s",
            found[OURS],
            EMBEDDER,
            found[EMBEDDER],
            at_least=0.9,
        ),
        compared(
            f"{name}, by LangChain",
            "chunks/s",
            found[OURS],
            other,
            found.get(LANGCHAIN),
            at_least=2.0,
        ),
        alone(name, "kB/s", [it * characters / len(chunks) / 1000 for it in found[OURS]]),
    ]


async def ingest(stack: Stack, texts: Mapping[str, str], collection: str = "") -> float:
    """Bring documents into a collection, a new one that is deleted again if it has no
    name; return the seconds from the first document to the last acknowledgement."""
    name = collection or f"bench-{secrets.token_hex(6)}"
    async with _gateway(stack) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
        requests = (
            pb.IngestRequest(collection=name, document=pb.Document(id=id_, content=text))
            for id_, text in texts.items()
        )
        began = time.perf_counter()
        async for response in stub.Ingest(requests):
            if response.HasField("refused"):
                raise RuntimeError(f"{response.document_id}: {response.refused.message}")
        seconds = time.perf_counter() - began
        if not collection:
            await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
    return seconds


@asynccontextmanager
async def _gateway(stack: Stack) -> AsyncIterator[Any]:
    options = [("grpc.max_send_message_length", 64 * 2**20)]
    async with grpc.aio.insecure_channel(stack.gateway, options=options) as channel:
        yield GatewayServiceStub(channel)


async def _chunks(stack: Stack, texts: Mapping[str, str]) -> list[str]:
    """Return the chunks as the gateway has them cut."""
    async with grpc.aio.insecure_channel(stack.endpoints["tokenizer"]["grpc"]) as channel:
        stub: Any = TokenizerServiceStub(channel)
        request = tokenizer_pb.ChunkRequest(
            texts=list(texts.values()), max_tokens=128, overlap_tokens=16
        )
        response = await stub.Chunk(request)
    return [chunk.text for text in response.texts for chunk in text.chunks]


async def _embed(stack: Stack, chunks: list[str]) -> float:
    """Embed chunks in the gateway's batches, four at once; return the seconds."""
    batches = iter([chunks[at : at + 64] for at in range(0, len(chunks), 64)])
    async with grpc.aio.insecure_channel(stack.endpoints["embedder"]["grpc"]) as channel:
        stub: Any = EmbedderServiceStub(channel)

        async def caller() -> None:
            for batch in batches:
                await stub.Embed(embedder_pb.EmbedRequest(texts=batch))

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(4)))
        return time.perf_counter() - began


async def _new_database(stack: Stack) -> str:
    """Make a database of its own beside ours; return its SQLAlchemy URL."""
    url = await asyncio.to_thread(database_url, stack)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE langchain"))
    url = url.rpartition("/")[0] + "/langchain"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION vector")
    return url.replace("postgresql://", "postgresql+psycopg://")
