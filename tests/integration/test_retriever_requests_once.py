"""A write that is sent again is applied once: over gRPC, on a real database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from support.cut_connection import proxy_to
from support.postgres import new_database
from support.retriever import (
    create,
    document,
    failure,
    module_fixtures,
    new_name,
    retriever_on,
    upsert,
)

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_local.ports import HOST, free_port
from quintet_retriever.app import SERVICE
from quintet_servicekit.channel import open_channel
from quintet_servicekit.errors import Reason
from quintet_servicekit.settings import ChannelSettings

if TYPE_CHECKING:
    from support.retriever import Stub

pytestmark = pytest.mark.asyncio(loop_scope="module")

url, stub, name = module_fixtures()


def new_id() -> str:
    return str(uuid.uuid4())


def write(name: str, *documents: pb.DocumentInput) -> pb.UpsertDocumentsRequest:
    return pb.UpsertDocumentsRequest(collection=name, documents=documents, request_id=new_id())


async def standing(stub: Stub, name: str, identifier: str) -> pb.Document:
    request = pb.GetDocumentRequest(collection=name, id=identifier, include_content=True)
    return (await stub.GetDocument(request)).document


async def test_a_repeated_write_changes_nothing_and_returns_what_the_first_did(
    stub: Stub, name: str
) -> None:
    request = write(name, document("a"), document("b"))
    first = await stub.UpsertDocuments(request)
    assert await stub.UpsertDocuments(request) == first
    assert [it.version for it in first.documents] == [1, 1]
    assert (await standing(stub, name, "a")).version == 1
    # Each token names the epoch: the third write is the first since.
    (third,) = await upsert(stub, name, document("a"))
    assert third.version == 2


async def test_a_repeated_write_does_not_undo_what_another_has_written_since(
    stub: Stub, name: str
) -> None:
    request = write(name, document("a", ["mine"]))
    first = await stub.UpsertDocuments(request)
    await upsert(stub, name, document("a", ["theirs"]))
    assert await stub.UpsertDocuments(request) == first
    assert (await standing(stub, name, "a")).content == "theirs"


async def test_a_batch_of_which_a_part_was_written_is_completed(
    stub: Stub, name: str, url: str
) -> None:
    request = write(name, document("a"), document("b"))
    await stub.UpsertDocuments(request)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(
            "DELETE FROM retriever.request WHERE id = %s AND item = 1", [request.request_id]
        )
    again = await stub.UpsertDocuments(request)
    assert [it.version for it in again.documents] == [1, 2]


async def test_of_many_equal_writes_at_once_one_is_applied(stub: Stub, name: str) -> None:
    request = write(name, document("a"))
    responses = await asyncio.gather(*(stub.UpsertDocuments(request) for _ in range(12)))
    assert all(response == responses[0] for response in responses)
    assert (await standing(stub, name, "a")).version == 1


async def test_another_request_with_the_same_id_is_refused(stub: Stub, name: str) -> None:
    request = write(name, document("a", ["one"]))
    await stub.UpsertDocuments(request)
    other = write(name, document("a", ["two"]))
    other.request_id = request.request_id
    error = await failure(stub.UpsertDocuments(other))
    assert error.reason is Reason.REQUEST_ID_REUSED
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    removal = pb.DeleteDocumentRequest(collection=name, id="a", request_id=request.request_id)
    assert (await failure(stub.DeleteDocument(removal))).reason is Reason.REQUEST_ID_REUSED
    assert (await standing(stub, name, "a")).content == "one"


async def test_vectors_of_the_same_content_hash_may_differ(stub: Stub, name: str) -> None:
    mine, again = document("a", vectors=[[1, 0]]), document("a", vectors=[[1, 1e-6]])
    mine.content_hash = again.content_hash = "h"
    request = write(name, mine)
    first = await stub.UpsertDocuments(request)
    request.documents[0].CopyFrom(again)
    assert await stub.UpsertDocuments(request) == first


async def test_a_repeated_deletion_deletes_once_and_remembers_that_there_was_nothing(
    stub: Stub, name: str
) -> None:
    early = pb.DeleteDocumentRequest(collection=name, id="a", request_id=new_id())
    assert (await failure(stub.DeleteDocument(early))).reason is Reason.DOCUMENT_NOT_FOUND
    await upsert(stub, name, document("a"))
    assert (await failure(stub.DeleteDocument(early))).reason is Reason.DOCUMENT_NOT_FOUND
    request = pb.DeleteDocumentRequest(collection=name, id="a", request_id=new_id())
    first = await stub.DeleteDocument(request)
    await upsert(stub, name, document("a"))
    assert await stub.DeleteDocument(request) == first
    assert (await standing(stub, name, "a")).version == 1


async def test_collections_are_made_and_deleted_once(stub: Stub) -> None:
    name = new_name()
    make = pb.CreateCollectionRequest(
        name=name,
        embedding_model="m",
        embedding_revision="r1",
        dimension=2,
        request_id=new_id(),
    )
    made = await stub.CreateCollection(make)
    assert await stub.CreateCollection(make) == made
    delete = pb.DeleteCollectionRequest(name=name, request_id=new_id())
    deleted = await stub.DeleteCollection(delete)
    assert await stub.DeleteCollection(delete) == deleted
    assert await stub.CreateCollection(make) == made
    get = pb.GetCollectionRequest(name=name)
    assert (await failure(stub.GetCollection(get))).reason is Reason.COLLECTION_NOT_FOUND
    await create(stub, name)
    assert await stub.DeleteCollection(delete) == deleted
    assert (await stub.GetCollection(get)).collection.name == name


async def test_an_id_that_is_no_uuid_is_refused(stub: Stub, name: str) -> None:
    request = write(name, document("a"))
    request.request_id = "1"
    error = await failure(stub.UpsertDocuments(request))
    assert error.reason is Reason.INVALID_FIELD
    assert [it.field for it in error.violations] == ["request_id"]


@pytest.fixture
def own_url(postgres_server: str) -> Iterator[str]:
    with new_database(postgres_server) as it:
        yield it


async def test_a_write_whose_response_was_lost_is_sent_again_and_applied_once(
    own_url: str,
) -> None:
    port = free_port()
    async with (
        retriever_on(own_url, port=port) as direct,
        proxy_to(f"{HOST}:{port}") as proxy,
    ):
        name = (await create(direct, new_name())).name
        channel = open_channel(proxy.address, SERVICE, ChannelSettings())
        flaky = pb_grpc.RetrieverServiceStub(channel)
        # The connection is made, and its answers come, before they are held.
        await flaky.ListCollections(pb.ListCollectionsRequest())
        proxy.hold_answers()
        request = write(name, document("a"))
        call = asyncio.ensure_future(flaky.UpsertDocuments(request))
        listing = pb.ListDocumentsRequest(collection=name)
        async with asyncio.timeout(10):
            while not (await direct.ListDocuments(listing)).documents:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        proxy.cut()
        response = await call
        await channel.close(None)
        assert response.documents[0].version == 1
        assert (await standing(direct, name, "a")).version == 1
        assert await direct.UpsertDocuments(request) == response


async def test_ids_are_forgotten_after_a_day(own_url: str) -> None:
    async with retriever_on(own_url) as stub:
        name = (await create(stub, new_name())).name
        old, young = write(name, document("a")), write(name, document("b"))
        await stub.UpsertDocuments(old)
        await stub.UpsertDocuments(young)
    async with await psycopg.AsyncConnection.connect(own_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE retriever.request SET create_time = create_time - interval '25 hours'"
            " WHERE id = %s",
            [old.request_id],
        )
        async with retriever_on(own_url), asyncio.timeout(20):
            while True:
                rows = await (
                    await connection.execute("SELECT id::text FROM retriever.request")
                ).fetchall()
                if len(rows) == 1:
                    break
                await asyncio.sleep(0.05)
    assert rows == [(young.request_id,)]
