"""Collections embedded anew while they are written, and documents embedded only where they
changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

SUBJECTS = ["bees", "ships", "kings", "rivers", "stars", "bread", "horses", "paper"]


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def note(subject: str, version: int = 1) -> pb.Document:
    return pb.Document(id=subject, title=subject, content=f"All about {subject}, part {version}.")


async def events(stub: Any, name: str, **fields: Any) -> list[pb.ReembedCollectionResponse]:
    request = pb.ReembedCollectionRequest(collection=name, **fields)
    return [event async for event in stub.ReembedCollection(request)]


async def contents(stub: Any, name: str) -> dict[str, str]:
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=200))
    found = {}
    for document in listed.documents:
        request = pb.GetDocumentRequest(collection=name, id=document.id, include_content=True)
        found[document.id] = (await stub.GetDocument(request)).document.content
    return found


async def best(stub: Any, name: str, query: str) -> str:
    request = pb.SearchRequest(collection=name, query=query, k=1)
    hits = (await stub.Search(request)).hits
    return str(hits[0].document_id)


async def test_a_collection_is_built_beside_compared_and_switched(stub: Any) -> None:
    async with new_collection(stub, map(note, SUBJECTS)) as name:
        built = await events(stub, name)
        assert built[-1].compared.overlap == pytest.approx(1)
        assert built[-1].compared.searches == len(SUBJECTS)
        assert await contents(stub, f"{name}-next") == await contents(stub, name)

        await ingest(
            stub, name, [note("bees", 2), pb.Document(id="whole", content="x", whole=True)]
        )
        await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id="kings"))
        expected = await contents(stub, name)
        switched = await events(stub, name, switch=True, least_overlap=0.5)
        try:
            assert switched[-1].switched.beside == f"{name}-next"
            assert await contents(stub, name) == await contents(stub, f"{name}-next") == expected
            assert await best(stub, name, "Which is about ships?") == "ships"
            # The one of before can be changed without this one's being so.
            await ingest(stub, f"{name}-next", [note("stars", 9)])
            assert await contents(stub, name) == expected
        finally:
            await stub.DeleteCollection(pb.DeleteCollectionRequest(name=f"{name}-next"))


async def test_no_acknowledged_document_is_missing_after_a_switch_under_writes(stub: Any) -> None:
    acknowledged: dict[str, str] = {}
    done = asyncio.Event()

    async def write() -> None:
        version = 1
        while not done.is_set():
            version += 1
            document = note(SUBJECTS[version % len(SUBJECTS)], version)
            (answer,) = await ingest(stub, name, [document])
            if answer.HasField("ingested"):
                acknowledged[document.id] = document.content
            await asyncio.sleep(0.2)  # a writer who leaves room between two writes

    async with new_collection(stub, map(note, SUBJECTS)) as name:
        writer = asyncio.create_task(write())
        try:
            switched = await events(stub, name, switch=True)
            assert switched[-1].HasField("switched")
            await asyncio.sleep(0.5)
        finally:
            done.set()
            await writer
            await stub.DeleteCollection(pb.DeleteCollectionRequest(name=f"{name}-next"))
        found = await contents(stub, name)
        assert {id_: found[id_] for id_ in acknowledged} == acknowledged
        assert len(acknowledged) > 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"collection": "not-there"}, "COLLECTION_NOT_FOUND"),
        ({"collection": "a", "beside": "a"}, "INVALID_FIELD"),
        ({"collection": "a", "least_overlap": 1.5}, "INVALID_FIELD"),
        ({"collection": ""}, "INVALID_FIELD"),
    ],
)
async def test_what_cannot_be_embedded_anew_is_refused(
    stub: Any, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in stub.ReembedCollection(pb.ReembedCollectionRequest(**fields)):
            pass
    assert reason(refused.value) == expected


async def test_of_a_changed_document_only_new_chunks_are_embedded(stub: Any) -> None:
    def guide(changed: str = "") -> pb.Document:
        sections = [
            f"## {it}\n\n{f'All about {it}. ' * 20}{changed * (it == 'kings')}" for it in SUBJECTS
        ]
        return pb.Document(id="guide", content="\n\n".join(["# Guide", *sections]))

    async with new_collection(stub) as name:
        (first,) = await ingest(stub, name, [guide()])
        (second,) = await ingest(stub, name, [guide("And of queens.")])
        assert second.ingested.chunks == first.ingested.chunks >= len(SUBJECTS)
        assert 0 < second.ingested.tokens < first.ingested.tokens / 3
        request = pb.SearchRequest(
            collection=name,
            query="All about stars",
            k=1,
            mode=retriever_pb.SEARCH_MODE_DENSE,
        )
        (hit,) = (await stub.Search(request)).hits
        assert "stars" in hit.text and hit.document_version == 2
