"""Two collections exchange their names, with readers and writers under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from support.retriever import (
    REVISION,
    create,
    document,
    failure,
    module_fixtures,
    new_name,
    packed,
    retriever_on,
    upsert,
)

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_servicekit.consistency import Epoch, decode_token
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub

pytestmark = pytest.mark.asyncio(loop_scope="module")

url, stub, name = module_fixtures()


async def token(stub: Stub, name: str) -> str:
    return (await stub.GetCollection(pb.GetCollectionRequest(name=name))).consistency_token


async def switch(stub: Stub, name: str, other: str, at: str = "") -> tuple[Epoch, Epoch]:
    request = pb.SwitchCollectionsRequest(
        name=name, other=other, consistency_token=at or await token(stub, name)
    )
    response = await stub.SwitchCollections(request)
    return (
        decode_token(name, response.consistency_token),
        decode_token(other, response.other_consistency_token),
    )


async def found(stub: Stub, name: str, dimension: int = 2) -> list[str]:
    request = pb.SearchRequest(collection=name, vector=packed([1] + [0] * (dimension - 1)), k=50)
    return [hit.text for hit in (await stub.Search(request)).hits]


async def test_names_lead_to_each_others_documents_and_models(stub: Stub, name: str) -> None:
    other = (await create(stub, new_name(), dimension=3)).name
    await upsert(stub, name, document("a", ["old"]))
    await upsert(stub, other, document("a", ["new"], [[1, 0, 0]]))
    await found(stub, name), await found(stub, other, 3)  # keys are remembered
    before = (
        decode_token(name, await token(stub, name)),
        decode_token(other, await token(stub, other)),
    )

    after = await switch(stub, name, other)

    assert after[0] > before[0] and after[1] > before[1]
    assert await found(stub, name, 3) == ["new"]
    assert await found(stub, other, 2) == ["old"]
    sizes = [
        (await stub.GetCollection(pb.GetCollectionRequest(name=each))).collection.dimension
        for each in (name, other)
    ]
    assert sizes == [3, 2]
    await upsert(stub, name, document("b", ["more"], [[1, 0, 0]]))
    assert sorted(await found(stub, name, 3)) == ["more", "new"]


async def test_switching_twice_is_going_back(stub: Stub, name: str) -> None:
    other = (await create(stub, new_name())).name
    await upsert(stub, name, document("a", ["old"]))
    first = await switch(stub, name, other)
    second = await switch(stub, name, other)
    assert second[0] > first[0] and second[1] > first[1]
    assert await found(stub, name) == ["old"]
    assert await found(stub, other) == []


async def test_nothing_is_switched_after_a_write_that_the_caller_has_not_seen(
    stub: Stub, name: str
) -> None:
    other = (await create(stub, new_name())).name
    seen = await token(stub, name)
    await upsert(stub, name, document("a", ["old"]))
    error = await failure(switch(stub, name, other, seen))
    assert error.reason is Reason.CONFLICT
    assert await found(stub, name) == ["old"]


async def test_a_missing_collection_is_named(stub: Stub, name: str) -> None:
    error = await failure(switch(stub, name, "not-there"))
    assert error.reason is Reason.COLLECTION_NOT_FOUND
    assert error.metadata["collection"] == "not-there"
    assert await found(stub, name) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"other": ""}, "other"), ({"other": "SAME"}, "other"), ({"consistency_token": "x"}, None)],
)
async def test_bad_names_and_tokens_are_refused(
    stub: Stub, name: str, fields: dict[str, str], field: str | None
) -> None:
    if fields.get("other") == "SAME":
        fields = {"other": name}
    request = pb.SwitchCollectionsRequest(name=name, **({"other": new_name()} | fields))
    error = await failure(stub.SwitchCollections(request))
    assert error.reason is Reason.INVALID_FIELD
    assert [it.field for it in error.violations] == [field or "consistency_token"]


async def test_another_replica_follows_a_switch(stub: Stub, name: str, url: str) -> None:
    other = (await create(stub, new_name(), dimension=3)).name
    await upsert(stub, name, document("a", ["old"]))
    await upsert(stub, other, document("a", ["new"], [[1, 0, 0]]))
    async with retriever_on(url) as replica:
        assert await found(replica, name) == ["old"]
        await switch(stub, name, other)
        assert await found(replica, name, 3) == ["new"]
        await upsert(replica, name, document("b", ["more"], [[1, 0, 0]]))
    assert sorted(await found(stub, name, 3)) == ["more", "new"]


async def test_searches_and_writes_never_see_half_a_switch(stub: Stub, name: str, url: str) -> None:
    other = (await create(stub, new_name())).name
    await upsert(stub, name, document("a", ["one"]), document("b", ["one"]))
    await upsert(stub, other, document("a", ["two"]), document("b", ["two"]))
    done = asyncio.Event()
    seen: set[tuple[str, ...]] = set()
    written = 0

    async def read() -> None:
        while not done.is_set():
            seen.add(tuple(sorted({text for text in await found(stub, name) if text != "w"})))

    async def write() -> None:
        nonlocal written
        while not done.is_set():
            try:
                await upsert(stub, name, document(f"w{written}", ["w"], [[0, 1]]))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED  # CONFLICT: nothing was written
                continue
            written += 1

    async def switch_often() -> None:
        switched = 0
        while switched < 10:
            try:
                await switch(stub, name, other)
                switched += 1
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED
        done.set()

    await asyncio.gather(read(), read(), write(), switch_often())
    assert seen == {("one",), ("two",)}
    with psycopg.connect(url) as connection:
        held = connection.execute(
            "SELECT sum(document_count)::integer FROM retriever.collection WHERE name IN (%s, %s)",
            [name, other],
        ).fetchone()
    assert held == (4 + written,)


async def test_a_deleted_collection_leaves_no_table_after_a_switch(
    stub: Stub, name: str, url: str
) -> None:
    other = (await create(stub, new_name())).name
    await switch(stub, name, other)
    for each in (name, other):
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=each))
    with psycopg.connect(url) as connection:
        orphans = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'retriever'::regnamespace"
            " AND relkind = 'r' AND relname ~ '_[0-9]+$' AND NOT EXISTS ("
            " SELECT FROM retriever.collection"
            " WHERE relname LIKE '%\\_' || retriever.collection.id)"
        ).fetchall()
    assert orphans == []


async def test_chunks_are_read_with_their_vectors(stub: Stub, name: str) -> None:
    sent = document("a", ["one", "two"], [[1, 0], [0, 1]])
    await upsert(stub, name, sent)
    await upsert(stub, name, sent)
    read = await stub.GetChunks(pb.GetChunksRequest(collection=name, id="a"))
    assert (read.version, read.embedding_revision) == (2, REVISION)
    assert list(read.chunks) == list(sent.chunks)


async def test_chunks_of_no_document_are_not_found(stub: Stub, name: str) -> None:
    error = await failure(stub.GetChunks(pb.GetChunksRequest(collection=name, id="a")))
    assert error.reason is Reason.DOCUMENT_NOT_FOUND
