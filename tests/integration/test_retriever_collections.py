"""Collections over gRPC: making, finding, listing and deleting them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from support.retriever import create, document, failure, packed, retriever_on, upsert

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub


@pytest.fixture
async def stub(database_url: str) -> AsyncIterator[Stub]:
    async with retriever_on(database_url) as it:
        yield it


async def count(stub: Stub, name: str) -> tuple[int, int]:
    found = (await stub.GetCollection(pb.GetCollectionRequest(name=name))).collection
    return found.document_count, found.chunk_count


async def test_a_collection_is_returned_as_it_was_made(stub: Stub) -> None:
    request = pb.CreateCollectionRequest(
        name="a-1_b",
        embedding_model="modèle",
        embedding_revision="r",
        dimension=384,
        description="für Menschen",
    )
    made = (await stub.CreateCollection(request)).collection
    assert (made.name, made.dimension, made.description) == ("a-1_b", 384, "für Menschen")
    assert (made.embedding_model, made.embedding_revision) == ("modèle", "r")
    assert made.create_time.seconds > 1_700_000_000
    found = (await stub.GetCollection(pb.GetCollectionRequest(name="a-1_b"))).collection
    assert found == made


async def test_making_it_again_returns_it_and_with_other_settings_it_exists(stub: Stub) -> None:
    made = await create(stub, "a")
    assert await create(stub, "a") == made
    for change in ({"dimension": 3}, {"embedding_model": "n"}, {"embedding_revision": "r2"}):
        settings = {"embedding_model": "m", "embedding_revision": "r1", "dimension": 2} | change
        error = await failure(
            stub.CreateCollection(pb.CreateCollectionRequest(name="a", **settings))  # type: ignore[arg-type]
        )
        assert error.code is grpc.StatusCode.ALREADY_EXISTS
        assert error.metadata == {"collection": "a"}


async def test_of_many_who_make_it_at_once_all_get_the_same(stub: Stub) -> None:
    made = await asyncio.gather(*[create(stub, "a") for _ in range(8)])
    assert all(it == made[0] for it in made)


async def test_collections_are_listed_by_name_in_pages(stub: Stub) -> None:
    names = sorted(["b", "a", "a-b", "a_b", "a0", "ab", "0"])
    for name in reversed(names):
        await create(stub, name)
    found, token = [], ""
    while True:
        page = await stub.ListCollections(pb.ListCollectionsRequest(page_size=3, page_token=token))
        found += [collection.name for collection in page.collections]
        token = page.next_page_token
        if not token:
            break
        assert len(page.collections) == 3
    assert found == names
    error = await failure(stub.ListCollections(pb.ListCollectionsRequest(page_token="rubbish")))
    assert error.reason is Reason.INVALID_PAGE_TOKEN


async def test_what_is_not_there_is_not_found(stub: Stub) -> None:
    calls: list[Awaitable[object]] = [
        stub.GetCollection(pb.GetCollectionRequest(name="no")),
        stub.DeleteCollection(pb.DeleteCollectionRequest(name="no")),
        stub.UpsertDocuments(pb.UpsertDocumentsRequest(collection="no", documents=[document("d")])),
        stub.GetDocument(pb.GetDocumentRequest(collection="no", id="d")),
        stub.ListDocuments(pb.ListDocumentsRequest(collection="no")),
        stub.DeleteDocument(pb.DeleteDocumentRequest(collection="no", id="d")),
        stub.Search(pb.SearchRequest(collection="no", text="x")),
    ]
    for call in calls:
        error = await failure(call)
        assert error.reason is Reason.COLLECTION_NOT_FOUND
        assert error.metadata == {"collection": "no"}


async def test_a_deleted_collection_leaves_nothing(stub: Stub, database_url: str) -> None:
    await create(stub, "a")
    await create(stub, "b")
    await upsert(stub, "a", *[document(f"d{i}", ["x", "y"]) for i in range(20)])
    await upsert(stub, "b", document("d0"))
    deleted = await stub.DeleteCollection(pb.DeleteCollectionRequest(name="a"))
    assert deleted.deleted_documents == 20
    error = await failure(stub.Search(pb.SearchRequest(collection="a", text="x")))
    assert error.reason is Reason.COLLECTION_NOT_FOUND
    assert await count(stub, "b") == (1, 1)
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename ~ '^(document|chunk)_'"
        ).fetchone()
    assert tables == (2,)
    await create(stub, "a", dimension=3)
    assert await count(stub, "a") == (0, 0)


@pytest.mark.parametrize("dimension", [1, 2001, 4000])
async def test_collections_of_any_dimension_live_together(stub: Stub, dimension: int) -> None:
    await create(stub, "small", dimension=2)
    await create(stub, "large", dimension=dimension)
    vector = [0.0] * (dimension - 1) + [1.0]
    await upsert(stub, "small", document("d"))
    await upsert(stub, "large", document("d", vectors=[vector]))
    request = pb.SearchRequest(collection="large", vector=packed(vector))
    (hit,) = (await stub.Search(request)).hits
    assert hit.score == pytest.approx(1)


async def test_a_collection_made_anew_through_another_replica_is_seen_at_once(
    stub: Stub, database_url: str
) -> None:
    await create(stub, "a")
    await upsert(stub, "a", document("old"))
    async with retriever_on(database_url) as other:
        await other.DeleteCollection(pb.DeleteCollectionRequest(name="a"))
        await create(other, "a", dimension=3)
        await upsert(other, "a", document("new", vectors=[[0, 1, 0]]))
        found = await stub.Search(pb.SearchRequest(collection="a", text="text"))
        assert [hit.document_id for hit in found.hits] == ["new"]
        await other.DeleteCollection(pb.DeleteCollectionRequest(name="a"))
        error = await failure(upsert(stub, "a", document("old")))
        assert error.reason is Reason.COLLECTION_NOT_FOUND


async def test_writers_and_searchers_of_a_collection_that_goes_find_no_collection(
    stub: Stub,
) -> None:
    await create(stub, "a")

    async def write(worker: int) -> None:
        for i in range(1000):
            await upsert(stub, "a", document(f"{worker}-{i % 3}"))

    async def search() -> None:
        for _ in range(1000):
            await stub.Search(pb.SearchRequest(collection="a", text="text"))

    tasks = [asyncio.ensure_future(failure(write(i))) for i in range(4)]
    tasks += [asyncio.ensure_future(failure(search())) for _ in range(2)]
    await asyncio.sleep(0.2)
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name="a"))
    reasons = {error.reason for error in await asyncio.gather(*tasks)}
    assert reasons == {Reason.COLLECTION_NOT_FOUND}
