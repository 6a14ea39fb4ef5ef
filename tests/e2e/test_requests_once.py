"""Writes that are sent to the gateway again are applied once."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, new_collection, reason
from support.replica import second_gateway
from support.stack import TestStack

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1 import gateway_service_pb2 as pb

MINE = "Bees make honey."
THEIRS = "Wasps make none."


def write(collection: str, content: str) -> pb.IngestRequest:
    document = pb.Document(id="bees", content=content)
    return pb.IngestRequest(collection=collection, document=document, request_id=str(uuid.uuid4()))


async def sent(stub: Any, request: pb.IngestRequest) -> pb.IngestResponse:
    (response,) = [it async for it in stub.Ingest(iter([request]))]
    assert isinstance(response, pb.IngestResponse)
    return response


async def content(stub: Any, collection: str) -> str:
    request = pb.GetDocumentRequest(collection=collection, id="bees", include_content=True)
    return str((await stub.GetDocument(request)).document.content)


async def test_a_document_that_is_sent_again_does_not_undo_what_came_since(
    stack: TestStack,
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        mine = write(name, MINE)
        first = await sent(stub, mine)
        await sent(stub, write(name, THEIRS))
        again = await sent(stub, mine)
        assert again.ingested.version == first.ingested.version == 1
        assert again.ingested.outcome == pb.INGEST_OUTCOME_CREATED
        assert again.ingested.consistency_token == first.ingested.consistency_token
        assert await content(stub, name) == THEIRS


async def test_equal_writes_at_once_are_one(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        request = write(name, MINE)
        responses = await asyncio.gather(*(sent(stub, request) for _ in range(4)))
        assert {it.ingested.version for it in responses} == {1}


async def test_another_document_with_the_same_id_is_refused(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        request = write(name, MINE)
        await sent(stub, request)
        request.document.content = THEIRS
        refused = (await sent(stub, request)).refused
        assert refused.reason == ErrorReason.ERROR_REASON_REQUEST_ID_REUSED
        assert await content(stub, name) == MINE


async def test_a_deletion_that_is_sent_again_leaves_what_came_since(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        await sent(stub, write(name, MINE))
        request = pb.DeleteDocumentRequest(collection=name, id="bees", request_id=str(uuid.uuid4()))
        first = await stub.DeleteDocument(request)
        await sent(stub, write(name, THEIRS))
        assert await stub.DeleteDocument(request) == first
        assert await content(stub, name) == THEIRS


async def test_collections_are_made_and_deleted_once(stack: TestStack) -> None:
    name = f"test-{secrets.token_hex(6)}"
    make = pb.CreateCollectionRequest(name=name, request_id=str(uuid.uuid4()))
    delete = pb.DeleteCollectionRequest(name=name, request_id=str(uuid.uuid4()))
    async with gateway_stub(stack.gateway) as stub:
        made = await stub.CreateCollection(make)
        deleted = await stub.DeleteCollection(delete)
        assert await stub.CreateCollection(make) == made
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetCollection(pb.GetCollectionRequest(name=name))
        assert reason(caught.value) == "COLLECTION_NOT_FOUND"
        assert await stub.DeleteCollection(delete) == deleted


async def said(stub: Any, collection: str) -> str:
    """Return what the gateway says that bees make; "" if nothing tells."""
    try:
        question = pb.AskRequest(collection=collection, question="What do bees make?")
        return str((await stub.Ask(question)).answer)
    except grpc.aio.AioRpcError as error:
        assert reason(error) == "NO_PASSAGES"
        return ""


async def knows_epochs(stub: Any, collection: str) -> None:
    """Wait until the gateway follows the news and trusts them."""
    question = pb.AskRequest(collection=collection, question="Do wasps?")
    async with asyncio.timeout(20):
        while (await stub.Ask(question)).cache.use.outcome != cache_pb.CACHE_OUTCOME_HIT:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_write_that_is_sent_again_takes_no_replica_back_to_its_time(
    stack: TestStack,
) -> None:
    """A gateway that heard nothing of the writes since must not believe the token that the
    repeated one brings: an answer of that time is kept."""
    async with AsyncExitStack() as opened:
        stub = await opened.enter_async_context(gateway_stub(stack.gateway))
        names = [await opened.enter_async_context(new_collection(stub)) for _ in range(2)]
        made = pb.CreateCollectionRequest(name=f"{names[0]}-made", request_id=str(uuid.uuid4()))
        mine = write(names[0], MINE)
        gone = pb.DeleteDocumentRequest(
            collection=names[1], id="bees", request_id=str(uuid.uuid4())
        )
        repeats: dict[str, Callable[[Any], Awaitable[Any]]] = {
            made.name: lambda stub: stub.CreateCollection(made),
            names[0]: lambda stub: sent(stub, mine),
            names[1]: lambda stub: stub.DeleteDocument(gone),
        }
        await sent(stub, write(names[1], MINE))
        for name, repeat in repeats.items():
            await repeat(stub)
            assert await said(stub, name) == (MINE if name == names[0] else "")
            await sent(stub, write(name, THEIRS))
        address = await opened.enter_async_context(second_gateway(stack))
        other = await opened.enter_async_context(gateway_stub(address))
        probe = await opened.enter_async_context(
            new_collection(stub, [pb.Document(id="wasps", content=THEIRS)])
        )
        await knows_epochs(other, probe)
        for name, repeat in repeats.items():
            await repeat(other)
            assert await said(other, name) == THEIRS, name
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=made.name))
