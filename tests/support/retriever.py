"""A real retriever on a real database, and documents to put into it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import numpy as np
import psycopg
import pytest
import pytest_asyncio
from numpy.typing import ArrayLike
from pydantic import SecretStr

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_retriever.app import open_application
from quintet_retriever.settings import Settings
from quintet_servicekit.errors import ServiceError, from_rpc_error
from support.grpc_service import serving
from support.postgres import new_database, service_url

if TYPE_CHECKING:
    Stub: TypeAlias = pb_grpc.RetrieverServiceAsyncStub

REVISION = "r1"


def settings_for(database_url: str, /, **settings: Any) -> Settings:
    """Return settings of a retriever that drains and probes as fast as tests want, on the
    owner's URL of a database."""
    quick: dict[str, Any] = {
        "lame_duck_seconds": 0,
        "drain_seconds": 1,
        "probe_interval_seconds": 0.05,
    }
    urls = {
        "database_url": SecretStr(service_url(database_url)),
        "owner_database_url": SecretStr(database_url),
    }
    return Settings(**(urls | quick | settings))


@asynccontextmanager
async def retriever_on(database_url: str, **settings: Any) -> AsyncIterator[Stub]:
    """Yield a stub of a retriever, served over gRPC in this process."""
    chosen = settings_for(database_url, **settings)
    async with open_application(chosen) as application, serving(application, chosen) as channel:
        yield pb_grpc.RetrieverServiceStub(channel)


def module_fixtures(**settings: Any) -> tuple[Any, Any, Any]:
    """Return the fixtures `url`, `stub` and `name` of a module whose tests share one
    database and one retriever of these settings; each has a new collection of two
    dimensions, of that name."""

    @pytest.fixture(scope="module")
    def url(postgres_server: str) -> Iterator[str]:
        with new_database(postgres_server) as it:
            yield it

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def stub(url: str) -> AsyncIterator[Stub]:
        async with retriever_on(url, **settings) as it:
            yield it

    @pytest_asyncio.fixture(loop_scope="module")
    async def name(stub: Stub) -> str:
        return (await create(stub, new_name())).name

    return url, stub, name


async def create(stub: Stub, name: str, dimension: int = 2) -> pb.Collection:
    """Make a collection and return it."""
    request = pb.CreateCollectionRequest(
        name=name, embedding_model="m", embedding_revision=REVISION, dimension=dimension
    )
    return (await stub.CreateCollection(request)).collection


def new_name() -> str:
    """Return a name that no other test's collection has."""
    return f"c-{secrets.token_hex(6)}"


def packed(vector: ArrayLike) -> bytes:
    """Return a vector as it travels."""
    return np.asarray(vector, dtype="<f4").tobytes()


def document(
    identifier: str,
    texts: Sequence[str] = ("text",),
    vectors: ArrayLike | None = None,
    **metadata: Any,
) -> pb.DocumentInput:
    """Return a document of the chunks `texts`, a line each; vectors are (1, 0) unless
    given."""
    rows = np.tile([1.0, 0.0], (len(texts), 1)) if vectors is None else np.asarray(vectors)
    message = pb.DocumentInput(id=identifier, title=f"Title of {identifier}")
    message.content = "\n".join(texts)
    message.metadata.update(metadata)
    start = 0
    for text, vector in zip(texts, rows, strict=True):
        end = start + len(text)
        message.chunks.add(text=text, start=start, end=end, tokens=1, vector=packed(vector))
        start = end + 1
    return message


async def upsert(
    stub: Stub, collection: str, *documents: pb.DocumentInput
) -> list[pb.UpsertedDocument]:
    """Write documents and return what became of them."""
    request = pb.UpsertDocumentsRequest(collection=collection, documents=documents)
    return list((await stub.UpsertDocuments(request)).documents)


def tables(database_url: str) -> dict[str, str]:
    """Return the names of the tables of the only collection, by "document" and "chunk"."""
    with psycopg.connect(database_url) as connection:
        ((identifier,),) = connection.execute("SELECT id FROM retriever.collection").fetchall()
    return {kind: f"retriever.{kind}_{identifier}" for kind in ("document", "chunk")}


async def failure(call: Awaitable[object]) -> ServiceError:
    """Return the error that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value, service="retriever")
