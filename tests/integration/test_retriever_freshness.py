"""Epochs, consistency tokens, and searches that are asked whether earlier hits stand."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import psycopg
import pytest
from support.retriever import (
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
from quintet_servicekit.consistency import LAST, Epoch, decode_token, encode_token
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub

pytestmark = pytest.mark.asyncio(loop_scope="module")

FULL_LISTS = {"candidates": 15}
"""Settings under which a small collection fills the lists of candidates."""


url, stub, name = module_fixtures(**FULL_LISTS)


async def search(stub: Stub, name: str, **fields: Any) -> pb.SearchResponse:
    return await stub.Search(pb.SearchRequest(collection=name, **fields))


async def write(stub: Stub, name: str, *documents: pb.DocumentInput) -> Epoch:
    request = pb.UpsertDocumentsRequest(collection=name, documents=documents)
    return decode_token(name, (await stub.UpsertDocuments(request)).consistency_token)


async def delete(stub: Stub, name: str, identifier: str) -> Epoch:
    request = pb.DeleteDocumentRequest(collection=name, id=identifier)
    return decode_token(name, (await stub.DeleteDocument(request)).consistency_token)


async def invalidate(stub: Stub, name: str, identifier: str = "") -> Epoch:
    request = pb.InvalidateCollectionRequest(collection=name, document_id=identifier)
    return decode_token(name, (await stub.InvalidateCollection(request)).consistency_token)


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values).fetchall()


# --- epochs and tokens -----------------------------------------------------------------


async def test_each_write_has_an_epoch_a_change_and_a_row_in_the_outbox(
    stub: Stub, url: str
) -> None:
    name = new_name()
    request = pb.CreateCollectionRequest(
        name=name, embedding_model="m", embedding_revision="r1", dimension=2
    )
    made = decode_token(name, (await stub.CreateCollection(request)).consistency_token)
    assert made.number == 0
    again = decode_token(name, (await stub.CreateCollection(request)).consistency_token)
    assert again == made
    writes: list[Callable[[], Awaitable[Epoch]]] = [
        lambda: write(stub, name, document("a")),
        lambda: write(stub, name, document("a"), document("b")),
        lambda: delete(stub, name, "a"),
        lambda: invalidate(stub, name, "b"),
        lambda: invalidate(stub, name),
    ]
    numbers = [(await each()).number for each in writes]
    assert numbers == [1, 3, 4, 5, 6]
    changes = rows(
        url,
        "SELECT epoch, document_key FROM retriever.change WHERE collection_id = %s ORDER BY epoch",
        made.collection,
    )
    assert changes == [(1, 1), (2, 1), (3, 3), (4, 1), (5, 3), (6, None)]

    request_to_delete = pb.DeleteCollectionRequest(name=name)
    gone = (await stub.DeleteCollection(request_to_delete)).consistency_token
    assert decode_token(name, gone) == Epoch(made.collection, LAST)
    kept = "SELECT count(*) FROM retriever.change WHERE collection_id = %s"
    assert rows(url, kept, made.collection) == [(0,)]
    anew = decode_token(name, (await stub.CreateCollection(request)).consistency_token)
    assert anew > decode_token(name, gone)


async def test_a_write_that_does_nothing_raises_no_epoch(stub: Stub, name: str) -> None:
    before = decode_token(name, (await search(stub, name, text="x")).consistency_token)
    for call in (delete(stub, name, "no"), invalidate(stub, name, "no")):
        assert (await failure(call)).reason is Reason.DOCUMENT_NOT_FOUND
    after = decode_token(name, (await search(stub, name, text="x")).consistency_token)
    assert after == before


async def test_writers_at_once_have_an_epoch_each(stub: Stub, url: str, name: str) -> None:
    epochs = await asyncio.gather(*[write(stub, name, document(f"d{i}")) for i in range(20)])
    assert sorted(epoch.number for epoch in epochs) == list(range(1, 21))


async def test_collections_made_and_deleted_at_once_have_ordered_epochs(stub: Stub) -> None:
    name = new_name()
    request = pb.CreateCollectionRequest(
        name=name, embedding_model="m", embedding_revision="r1", dimension=2
    )

    async def churn() -> list[Epoch]:
        seen = []
        for _ in range(8):
            token = (await stub.CreateCollection(request)).consistency_token
            seen.append(decode_token(name, token))
            # Another one may be faster.
            with suppress(grpc.aio.AioRpcError):
                await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
        return seen

    for seen in await asyncio.gather(*[churn() for _ in range(4)]):
        assert seen == sorted(seen) and seen[0] < seen[-1]


async def test_a_read_tells_the_epoch_that_it_saw(stub: Stub, name: str) -> None:
    epoch = await write(stub, name, document("a"))
    request = pb.GetDocumentRequest(collection=name, id="a")
    assert decode_token(name, (await stub.GetDocument(request)).consistency_token) == epoch
    response = await search(stub, name, vector=packed([1, 0]))
    assert decode_token(name, response.consistency_token) == epoch
    token = pb.Consistency(at_least_as_fresh=response.consistency_token)
    assert len((await search(stub, name, vector=packed([1, 0]), consistency=token)).hits) == 1
    fully = pb.Consistency(fully_consistent=True)
    assert len((await search(stub, name, vector=packed([1, 0]), consistency=fully)).hits) == 1


async def test_a_token_that_the_database_cannot_satisfy_is_refused(stub: Stub, name: str) -> None:
    epoch = await write(stub, name, document("a"))
    tokens = [
        encode_token(name, Epoch(epoch.collection, epoch.number + 1)),
        encode_token(name, Epoch(epoch.collection + 1, 0)),
        encode_token("other", epoch),
        "rubbish",
        "",
    ]
    for token in tokens:
        fresh = pb.Consistency(at_least_as_fresh=token)
        error = await failure(search(stub, name, text="x", consistency=fresh))
        assert error.reason is Reason.INVALID_FIELD
        assert error.violations[0].field == "consistency.at_least_as_fresh"


# --- known_state -----------------------------------------------------------------------


def spread(count: int) -> list[pb.DocumentInput]:
    """Documents "0", "1" … ever farther from (1, 0), each with the word "bee" and one
    of its own."""
    angles = np.linspace(0, 1, count)
    return [
        document(str(i), [f"bee w{i}"], [[np.cos(angle), np.sin(angle)]])
        for i, angle in enumerate(angles)
    ]


FAR = document("far", ["nothing"], [[-1, 0]])
NEAR = document("near", ["nothing"], [[1, 0]])

QUERIES: dict[str, dict[str, Any]] = {
    "dense": {"vector": packed([1, 0]), "k": 5},
    "lexical": {"text": "bee", "k": 5},
    "hybrid": {"vector": packed([1, 0]), "text": "bee", "k": 5},
}


@pytest.mark.parametrize("mode", QUERIES)
async def test_what_does_not_concern_the_hits_leaves_them_unchanged(
    stub: Stub, name: str, mode: str
) -> None:
    await write(stub, name, *spread(34))
    query = QUERIES[mode]
    first = await search(stub, name, **query)
    assert len(first.hits) == 5 and first.state and not first.unchanged

    same = await search(stub, name, known_state=first.state, **query)
    assert same.unchanged and not same.hits and same.mode == first.mode

    await write(stub, name, FAR)
    await write(stub, name, FAR)
    epoch = await delete(stub, name, "far")
    later = await search(stub, name, known_state=first.state, **query)
    assert later.unchanged and not later.hits
    assert decode_token(name, later.consistency_token) == epoch
    assert later.state != first.state
    assert (await search(stub, name, known_state=later.state, **query)).unchanged


HEAD = struct.Struct(">B16sQQddB")
"""As `search_state` has it: version, digest, epoch, floors, bytes of a document key."""


@pytest.mark.parametrize(
    "state",
    [
        *({"number": number} for number in (0, LAST, 2**63, 2**64 - 1)),
        *({"floor": floor} for floor in (math.nan, math.inf)),
        {"keys": b"\xff" * 8, "width": 8},
        {"keys": b"", "width": 1},
    ],
    ids=str,
)
async def test_a_state_that_a_caller_made_up_is_searched_anew_or_is_none(
    stub: Stub, name: str, state: dict[str, Any]
) -> None:
    await write(stub, name, *spread(30))
    query = QUERIES["hybrid"]
    first = await search(stub, name, **query)
    version, digest, collection, number, dense, _, width = HEAD.unpack_from(first.state)
    floor = state.get("floor", dense)
    head = HEAD.pack(
        version, digest, collection, state.get("number", number), floor, floor,
        state.get("width", width),
    )  # fmt: skip
    forged = head + state.get("keys", first.state[HEAD.size :])
    response = await search(stub, name, known_state=forged, **query)
    assert response.unchanged or [it.text for it in response.hits] == [it.text for it in first.hits]


@pytest.mark.parametrize("mode", QUERIES)
async def test_a_hit_that_was_touched_is_searched_anew(stub: Stub, name: str, mode: str) -> None:
    await write(stub, name, *spread(34))
    query = QUERIES[mode]
    state = (await search(stub, name, **query)).state
    changes: list[Callable[[], Awaitable[Epoch]]] = [
        lambda: write(stub, name, spread(34)[0]),
        lambda: delete(stub, name, "0"),
        lambda: invalidate(stub, name, "1"),
        lambda: invalidate(stub, name),
    ]
    for change in changes:
        await change()
        response = await search(stub, name, known_state=state, **query)
        assert not response.unchanged and len(response.hits) == 5
        state = response.state


@pytest.mark.parametrize("mode", QUERIES)
async def test_hits_that_were_declared_out_of_date_say_so_although_they_are_the_same(
    stub: Stub, name: str, mode: str
) -> None:
    await write(stub, name, *spread(34), FAR)
    query = QUERIES[mode]
    first = await search(stub, name, **query)
    await write(stub, name, spread(34)[0])
    written = await search(stub, name, known_state=first.state, **query)
    assert not written.unchanged and not written.invalidated

    await invalidate(stub, name, "far")
    other = await search(stub, name, known_state=written.state, **query)
    assert other.unchanged and not other.invalidated

    for identifier in ("0", ""):
        await invalidate(stub, name, identifier)
        for _ in range(2):
            same = await search(stub, name, known_state=other.state, **query)
            assert same.invalidated and not same.unchanged and same.hits == written.hits
            await write(stub, name, FAR)
        assert (await search(stub, name, known_state=same.state, **query)).unchanged
        other = await search(stub, name, **query)
        assert not other.invalidated


async def test_a_chunk_that_comes_among_the_hits_is_found(stub: Stub, name: str) -> None:
    await write(stub, name, *spread(34))
    dense, lexical, hybrid = QUERIES.values()
    states = [(await search(stub, name, **query)).state for query in QUERIES.values()]
    await write(stub, name, NEAR)
    found = await search(stub, name, known_state=states[0], **dense)
    assert "near" in [hit.document_id for hit in found.hits]
    assert (await search(stub, name, known_state=states[1], **lexical)).unchanged
    # It is a candidate now, which is enough: whether it is a hit, the fusion decides.
    assert not (await search(stub, name, known_state=states[2], **hybrid)).unchanged


async def test_a_list_with_room_takes_whatever_matches(stub: Stub, name: str) -> None:
    await write(stub, name, *spread(3))
    states = {mode: (await search(stub, name, **query)).state for mode, query in QUERIES.items()}
    await write(stub, name, FAR)
    for mode, query in QUERIES.items():
        response = await search(stub, name, known_state=states[mode], **query)
        assert response.unchanged is (mode == "lexical")


async def test_a_newcomer_that_the_filter_excludes_does_not_matter(stub: Stub, name: str) -> None:
    await write(stub, name, *[document(str(i), ["bee"], lang="en") for i in range(3)])
    only = pb.Filter()
    only.equals.key, only.equals.value.string_value = "lang", "en"
    for query in QUERIES.values():
        state = (await search(stub, name, filter=only, **query)).state
        await write(stub, name, document("x", ["bee"], lang="de"))
        assert (await search(stub, name, filter=only, known_state=state, **query)).unchanged
        await write(stub, name, document("x", ["bee"], lang="en"))
        response = await search(stub, name, filter=only, known_state=state, **query)
        assert len(response.hits) == 4
        await delete(stub, name, "x")


async def test_a_state_of_another_request_is_as_good_as_none(stub: Stub, name: str) -> None:
    await write(stub, name, *spread(34))
    other = (await create(stub, new_name())).name
    state = (await search(stub, name, **QUERIES["dense"])).state
    for collection, fields in (
        (name, {"vector": packed([1, 0]), "k": 6}),
        (name, {"vector": packed([0, 1]), "k": 5}),
        (name, QUERIES["hybrid"]),
        (other, QUERIES["dense"]),
    ):
        response = await search(stub, collection, known_state=state, **fields)
        assert not response.unchanged and response.invalidated
    assert not (await search(stub, name, known_state=b"rubbish", **QUERIES["dense"])).unchanged
    error = await failure(search(stub, name, known_state=b"x" * 16_385, **QUERIES["dense"]))
    assert error.reason is Reason.INVALID_FIELD


async def test_what_cannot_be_told_any_more_is_searched_anew(
    stub: Stub, url: str, name: str
) -> None:
    await write(stub, name, *spread(34))
    query = QUERIES["dense"]
    state = (await search(stub, name, **query)).state
    epoch = await write(stub, name, FAR)
    await write(stub, name, FAR)
    with psycopg.connect(url) as connection:
        connection.execute(
            "DELETE FROM retriever.change WHERE collection_id = %s AND epoch = %s",
            [epoch.collection, epoch.number],
        )
    response = await search(stub, name, known_state=state, **query)
    assert not response.unchanged and response.invalidated and len(response.hits) == 5


async def test_too_many_writes_or_chunks_are_searched_anew(url: str) -> None:
    async with retriever_on(url, max_changes=3) as stub:
        name = (await create(stub, new_name())).name
        await write(stub, name, *spread(34))
        query = QUERIES["dense"]
        state = (await search(stub, name, **query)).state
        for expected in (True, True, True, False):
            await write(stub, name, FAR)
            response = await search(stub, name, known_state=state, **query)
            assert response.unchanged is expected
        state = response.state
        await write(stub, name, document("far", ["x"] * 4, [[-1, 0]] * 4))
        assert not (await search(stub, name, known_state=state, **query)).unchanged


async def test_a_state_from_before_the_collection_was_made_anew_is_none(stub: Stub) -> None:
    name = (await create(stub, new_name())).name
    await write(stub, name, *spread(34))
    state = (await search(stub, name, **QUERIES["dense"])).state
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
    await create(stub, name)
    response = await search(stub, name, known_state=state, **QUERIES["dense"])
    assert not response.unchanged and not response.hits


# --- the rule --------------------------------------------------------------------------

DIMENSION = 6
WORDS = [f"word{i}" for i in range(30)]


class World:
    """Random writes to a collection, and questions that are asked again and again."""

    def __init__(self, stub: Stub, name: str, seed: int) -> None:
        self.stub = stub
        self.name = name
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.documents: dict[str, pb.DocumentInput] = {}
        self.outcomes = {mode: [0, 0] for mode in ("dense", "lexical", "hybrid")}

    def new_document(self, identifier: str) -> pb.DocumentInput:
        chunks = self.random.randint(1, 3)
        texts = [
            " ".join(self.random.choices(WORDS, k=self.random.randint(2, 8))) for _ in range(chunks)
        ]
        vectors = self.numbers.normal(size=(chunks, DIMENSION))
        return document(identifier, texts, vectors, n=self.random.randrange(4))

    async def fill(self, count: int) -> None:
        for i in range(count):
            self.documents[str(i)] = self.new_document(str(i))
        everything = list(self.documents.values())
        for first in range(0, count, 50):
            await upsert(self.stub, self.name, *everything[first : first + 50])

    async def write(self) -> None:
        known = self.random.choice(list(self.documents))
        match self.random.randrange(5):
            case 0:
                identifier = f"n{len(self.documents)}-{self.random.random()}"
                self.documents[identifier] = self.new_document(identifier)
                await write(self.stub, self.name, self.documents[identifier])
            case 1:
                self.documents[known] = self.new_document(known)
                await write(self.stub, self.name, self.documents[known])
            case 2:
                self.documents[known].metadata["n"] = self.random.randrange(4)
                await write(self.stub, self.name, self.documents[known])
            case 3:
                del self.documents[known]
                await delete(self.stub, self.name, known)
            case 4:
                await delete(self.stub, self.name, known)
                await write(self.stub, self.name, self.documents[known])

    def queries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        some = pb.Filter()
        some.range.key, some.range.gte.number_value = "n", 2
        for mode in self.outcomes:
            for k in (1, 5, 30):
                for chosen in (None, some):
                    fields: dict[str, Any] = {"k": k, "filter": chosen}
                    if mode != "lexical":
                        fields["vector"] = packed(self.numbers.normal(size=DIMENSION))
                    if mode != "dense":
                        fields["text"] = " ".join(self.random.choices(WORDS, k=2))
                    yield mode, fields


@pytest.mark.parametrize("seed", [1, 2])
async def test_unchanged_is_said_only_where_a_new_search_gives_the_very_same(
    stub: Stub, seed: int
) -> None:
    name = (await create(stub, new_name(), dimension=DIMENSION)).name
    world = World(stub, name, seed)
    await world.fill(200)
    questions = [
        (mode, fields, await search(stub, name, **fields)) for mode, fields in world.queries()
    ]
    for _ in range(25):
        for _ in range(world.random.choice((1, 1, 3))):
            await world.write()
        for i, (mode, fields, before) in enumerate(questions):
            response = await search(stub, name, known_state=before.state, **fields)
            now = await search(stub, name, **fields)
            world.outcomes[mode][response.unchanged] += 1
            if response.unchanged:
                assert list(now.hits) == list(before.hits)
                before.state = response.state
            else:
                assert list(now.hits) == list(response.hits)
                questions[i] = (mode, fields, response)
    # It would be true of a rule that never says so.
    for changed, unchanged in world.outcomes.values():
        assert unchanged > 0.15 * (changed + unchanged)
    assert world.outcomes["dense"][True] > 0.6 * sum(world.outcomes["dense"])
