"""Documents over gRPC: written whole or not at all, read, listed and deleted."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.protobuf import json_format
from support.retriever import (
    REVISION,
    create,
    document,
    failure,
    module_fixtures,
    new_name,
    packed,
    upsert,
)

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub


pytestmark = pytest.mark.asyncio(loop_scope="module")


url, stub, name = module_fixtures()


async def get(stub: Stub, collection: str, identifier: str) -> pb.Document:
    request = pb.GetDocumentRequest(collection=collection, id=identifier, include_content=True)
    return (await stub.GetDocument(request)).document


async def counts(stub: Stub, name: str) -> tuple[int, int]:
    found = (await stub.GetCollection(pb.GetCollectionRequest(name=name))).collection
    return found.document_count, found.chunk_count


async def texts(stub: Stub, collection: str) -> list[str]:
    request = pb.SearchRequest(collection=collection, vector=packed([1, 0]), k=200)
    return sorted(hit.text for hit in (await stub.Search(request)).hits)


METADATA: dict[str, Any] = {
    "string": "naïve 東京 🐝 'quoted' \"double\" \\",
    "number": 1.5,
    "integer": 2**53,
    "large": 1e300,
    "true": True,
    "null": None,
    "list": [1, "a", [], {}],
    "nested": {"a.b": {"": 1}},
}


async def test_a_document_is_read_as_it_was_written(stub: Stub, name: str) -> None:
    written = document("id/ü 🐝", ["naïve 東京\u2028", "𝕊econd  \t"], **METADATA)
    written.content_hash = "h"
    (result,) = await upsert(stub, name, written)
    assert (result.version, result.created, result.chunk_count) == (1, True, 2)
    found = await get(stub, name, "id/ü 🐝")
    assert (found.id, found.title, found.content) == (written.id, written.title, written.content)
    assert json_format.MessageToDict(found.metadata) == METADATA
    assert (found.content_hash, found.version, found.chunk_count) == ("h", 1, 2)
    assert found.content_length == len(written.content)
    assert found.create_time == found.update_time
    bare = (await stub.GetDocument(pb.GetDocumentRequest(collection=name, id="id/ü 🐝"))).document
    assert bare.content == "" and bare.content_length == len(written.content)


async def test_a_document_without_metadata_has_none(stub: Stub, name: str) -> None:
    await upsert(stub, name, document("d"))
    assert not (await get(stub, name, "d")).HasField("metadata")


async def test_a_write_replaces_the_document_whole(stub: Stub, name: str) -> None:
    await upsert(stub, name, document("d", ["one", "two", "three"], a=1), document("e", ["other"]))
    first = await get(stub, name, "d")
    (result,) = await upsert(stub, name, document("d", ["four"]))
    assert (result.version, result.created) == (2, False)
    second = await get(stub, name, "d")
    assert second.content == "four" and not second.HasField("metadata")
    assert second.create_time == first.create_time
    assert second.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    assert await texts(stub, name) == ["four", "other"]
    assert await counts(stub, name) == (2, 2)


async def test_results_are_in_the_requests_order(stub: Stub, name: str) -> None:
    names = ["b", "a", "d", "c"]
    results = await upsert(stub, name, *[document(name) for name in names])
    assert [result.id for result in results] == names


async def test_a_deleted_document_is_gone_with_its_chunks(stub: Stub, name: str) -> None:
    await upsert(stub, name, document("d", ["one", "two"]), document("e"))
    deleted = await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id="d"))
    assert deleted.deleted_chunks == 2
    assert await texts(stub, name) == ["text"]
    assert await counts(stub, name) == (1, 1)
    for call in (
        stub.GetDocument(pb.GetDocumentRequest(collection=name, id="d")),
        stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id="d")),
    ):
        error = await failure(call)
        assert error.reason is Reason.DOCUMENT_NOT_FOUND
        assert error.metadata == {"collection": name, "document_id": "d"}
    (again,) = await upsert(stub, name, document("d"))
    assert (again.version, again.created) == (1, True)


async def test_the_same_document_in_two_collections_never_mixes(stub: Stub, name: str) -> None:
    other = (await create(stub, new_name())).name
    await upsert(stub, name, document("d", ["same"], where="c"))
    await upsert(stub, other, document("d", ["same"], where="other"))
    await upsert(stub, other, document("d", ["changed"], where="other"))
    assert await texts(stub, name) == ["same"]
    assert await texts(stub, other) == ["changed"]
    assert (await get(stub, name, "d")).version == 1
    await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=other, id="d"))
    assert (await get(stub, name, "d")).metadata["where"] == "c"
    assert await counts(stub, other) == (0, 0)


async def test_documents_are_listed_by_id_in_pages_through_a_filter(stub: Stub, name: str) -> None:
    names = [f"{i:02}" for i in range(23)]
    await upsert(stub, name, *[document(name, odd=int(name) % 2) for name in names])
    request = pb.ListDocumentsRequest(collection=name, page_size=5)
    request.filter.equals.key = "odd"
    request.filter.equals.value.number_value = 1
    found = []
    while True:
        page = await stub.ListDocuments(request)
        found += [it.id for it in page.documents]
        assert all(it.content == "" and it.content_length == 4 for it in page.documents)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == names[1::2]

    everything = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name))
    assert [it.id for it in everything.documents] == names
    exact = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=23))
    assert exact.next_page_token == ""


async def test_a_page_of_large_documents_stays_below_what_clients_accept(
    stub: Stub, name: str
) -> None:
    names = [f"{i:03}" for i in range(100)]
    for first in range(0, 100, 50):
        await upsert(stub, name, *[document(it, a="x" * 65_000) for it in names[first:][:50]])
    request = pb.ListDocumentsRequest(collection=name, page_size=1000)
    found = []
    while True:
        page = await stub.ListDocuments(request)
        assert page.ByteSize() < 4 * 2**20
        found += [it.id for it in page.documents]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == names


async def test_a_token_of_another_listing_is_refused(stub: Stub, name: str) -> None:
    other = (await create(stub, new_name())).name
    await upsert(stub, name, document("a"), document("b"))
    page = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=1))
    token = page.next_page_token
    filtered = pb.ListDocumentsRequest(collection=name, page_token=token)
    filtered.filter.exists.key = "a"
    for call in (
        stub.ListDocuments(pb.ListDocumentsRequest(collection=other, page_token=token)),
        stub.ListDocuments(filtered),
        stub.ListCollections(pb.ListCollectionsRequest(page_token=token)),
        stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_token=token[:-2] + "AA")),
    ):
        assert (await failure(call)).reason is Reason.INVALID_PAGE_TOKEN


async def test_concurrent_writers_of_one_document_get_the_versions_in_turn(
    stub: Stub, name: str
) -> None:
    results = await asyncio.gather(
        *[upsert(stub, name, document("d", [f"text {i}"] * (i % 3 + 1))) for i in range(24)]
    )
    assert sorted(result.version for (result,) in results) == list(range(1, 25))
    assert sum(result.created for (result,) in results) == 1
    found = await get(stub, name, "d")
    last = max(range(24), key=lambda i: results[i][0].version)
    assert found.content.splitlines() == [f"text {last}"] * (last % 3 + 1)
    assert await texts(stub, name) == found.content.splitlines()
    assert await counts(stub, name) == (1, last % 3 + 1)


async def test_counts_stay_right_under_concurrent_writes_and_deletes(stub: Stub, name: str) -> None:
    async def churn(worker: int) -> None:
        for i in range(12):
            identifier = f"{(worker + i) % 5}"
            await upsert(stub, name, document(identifier, ["t"] * (i % 4 + 1)))
            if i % 3 == 2:
                request = pb.DeleteDocumentRequest(collection=name, id=identifier)
                await asyncio.gather(stub.DeleteDocument(request), return_exceptions=True)

    await asyncio.gather(*[churn(worker) for worker in range(6)])
    listed = (await stub.ListDocuments(pb.ListDocumentsRequest(collection=name))).documents
    assert await counts(stub, name) == (len(listed), sum(it.chunk_count for it in listed))
    assert len(await texts(stub, name)) == sum(it.chunk_count for it in listed)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (document("bad", vectors=[[1, 2, 3]]), Reason.DIMENSION_MISMATCH),
        (document("bad", vectors=[[0, 0]]), Reason.INVALID_FIELD),
        (document("bad", vectors=[[math.nan, 1]]), Reason.INVALID_FIELD),
        (document("bad", vectors=[[math.inf, 1]]), Reason.INVALID_FIELD),
        (document("good"), Reason.DUPLICATE_ID),
        (pb.DocumentInput(id="bad", content="x"), Reason.INVALID_FIELD),
        (pb.DocumentInput(id="bad"), Reason.INVALID_FIELD),
        (document("bad", a="\0"), Reason.INVALID_FIELD),
    ],
)
async def test_of_a_batch_with_one_bad_document_nothing_is_written(
    stub: Stub, name: str, bad: pb.DocumentInput, reason: Reason
) -> None:
    error = await failure(upsert(stub, name, document("good"), bad))
    assert error.reason is reason
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    if reason is Reason.DIMENSION_MISMATCH:
        assert error.metadata == {"expected": "2", "actual": "3"}
    if reason is not Reason.DUPLICATE_ID:
        assert error.violations[0].field.startswith("documents[1]")
    assert await counts(stub, name) == (0, 0)


async def test_vectors_of_another_revision_are_refused(stub: Stub, name: str) -> None:
    request = pb.UpsertDocumentsRequest(
        collection=name, documents=[document("d")], embedding_revision="r2"
    )
    error = await failure(stub.UpsertDocuments(request))
    assert error.reason is Reason.MODEL_MISMATCH
    assert error.metadata == {"collection": name, "expected": REVISION, "actual": "r2"}
    request.embedding_revision = REVISION
    await stub.UpsertDocuments(request)
    search = pb.SearchRequest(collection=name, vector=packed([1, 0]), embedding_revision="r2")
    assert (await failure(stub.Search(search))).reason is Reason.MODEL_MISMATCH


async def test_a_50_mb_document_is_refused_by_name(stub: Stub, name: str) -> None:
    huge = document("d", ["x" * 25_000_000, "y" * 25_000_000])
    huge.chunks[0].text = huge.chunks[1].text = "x"
    assert (await failure(upsert(stub, name, huge))).reason is Reason.INPUT_TOO_LONG


async def test_a_long_document_of_many_chunks_is_kept(stub: Stub, name: str) -> None:
    lines = [f"word{i} " * 40 for i in range(1_000)]
    (result,) = await upsert(stub, name, document("long", lines))
    assert result.chunk_count == 1_000
    assert (await get(stub, name, "long")).content == "\n".join(lines)


BREAK = """
CREATE OR REPLACE FUNCTION breaking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.text = 'slow' THEN PERFORM pg_sleep(30); END IF;
    IF NEW.text = 'broken' THEN RAISE EXCEPTION 'secret %', NEW.text; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER breaking BEFORE INSERT ON retriever.chunk_{}
    FOR EACH ROW EXECUTE FUNCTION breaking();
"""


@pytest_asyncio.fixture(loop_scope="module")
async def breakable(stub: Stub, url: str, name: str) -> str:
    """A collection whose chunks "slow" and "broken" are just that, with a document "d"."""
    await upsert(stub, name, document("d", ["old one", "old two"]))
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT id FROM retriever.collection WHERE name = %s"
        (number,) = connection.execute(query, [name]).fetchone() or (0,)
        connection.execute(BREAK.format(number).encode())
    return name


async def assert_untouched(stub: Stub, name: str) -> None:
    found = await get(stub, name, "d")
    assert (found.content, found.version) == ("old one\nold two", 1)
    assert await texts(stub, name) == ["old one", "old two"]
    assert await counts(stub, name) == (1, 2)


async def becomes_busy(database_url: str, busy: bool) -> None:
    """Wait until the server has, or has not, a backend that works on chunks for us."""
    query = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'quintet-retriever' AND query ~ 'chunk' AND state <> 'idle'"
    )
    async with asyncio.timeout(3):
        with psycopg.connect(database_url, autocommit=True) as connection:
            while True:
                await asyncio.sleep(0.02)
                if connection.execute(query).fetchone() == (busy,):
                    return


async def test_a_chunk_that_fails_leaves_the_old_document_whole(stub: Stub, breakable: str) -> None:
    error = await failure(upsert(stub, breakable, document("d", ["new", "broken", "more"])))
    assert error.reason is Reason.INTERNAL
    assert "secret" not in error.message and list(error.metadata) == ["trace_id"]
    await assert_untouched(stub, breakable)
    (result,) = await upsert(stub, breakable, document("d", ["new"]))
    assert result.version == 2


async def test_a_caller_who_leaves_in_mid_write_leaves_nothing_half_written(
    stub: Stub, breakable: str, url: str
) -> None:
    request = pb.UpsertDocumentsRequest(
        collection=breakable, documents=[document("d", ["new", "slow"]), document("e")]
    )
    call = stub.UpsertDocuments(request)
    await becomes_busy(url, True)
    call.cancel()
    await becomes_busy(url, False)
    await assert_untouched(stub, breakable)


async def test_a_deadline_ends_the_statement_in_the_server(
    stub: Stub, breakable: str, url: str
) -> None:
    request = pb.UpsertDocumentsRequest(collection=breakable, documents=[document("d", ["slow"])])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpsertDocuments(request, timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await becomes_busy(url, False)
    await assert_untouched(stub, breakable)
