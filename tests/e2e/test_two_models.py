"""A collection that moves to a model of another dimension and back, while it is searched and
written, asked and interrupted: with two real models in one embedder."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.second_model import DIMENSION, SECOND_MODEL, environment
from support.stack import ALLOWED, TestStack, stack_in_thread

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_embedder.settings import EMBEDDED_MODEL

SUBJECTS = [
    "bees and their honey",
    "sailing ships",
    "kings of Norway",
    "rivers in spring",
    "distant stars",
    "baking bread",
    "wild horses",
    "handmade paper",
    "steam engines",
    "violins",
    "chess openings",
    "volcanoes",
]
QUESTION = "What is said of volcanoes?"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    """A stack whose embedder has both models."""
    folder = tmp_path_factory.mktemp("two-models") / "state"
    with stack_in_thread(folder, {**ALLOWED, **environment()}) as running:
        yield running


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def note(subject: str, text: str = "") -> pb.Document:
    content = text or f"All that is known about {subject}, and where to read more on {subject}."
    return pb.Document(id=subject, title=subject, content=content)


def shelf(copies: int) -> list[pb.Document]:
    notes = [note(it) for it in SUBJECTS]
    more = [note(f"{it}, part {part}") for it in SUBJECTS for part in range(1, copies)]
    return notes + more


async def moved(stub: Any, name: str, **fields: Any) -> list[pb.ReembedCollectionResponse]:
    request = pb.ReembedCollectionRequest(collection=name, **fields)
    return [event async for event in stub.ReembedCollection(request)]


async def about(stub: Any, name: str) -> retriever_pb.Collection:
    found = await stub.GetCollection(pb.GetCollectionRequest(name=name))
    collection: retriever_pb.Collection = found.collection
    return collection


async def documents(stub: Any, name: str) -> dict[str, tuple[str, int]]:
    """Return the content and version of each document."""
    found = {}
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=200))
    for document in listed.documents:
        request = pb.GetDocumentRequest(collection=name, id=document.id, include_content=True)
        got = (await stub.GetDocument(request)).document
        found[document.id] = (got.content, got.version)
    return found


async def contents(stub: Any, name: str) -> dict[str, str]:
    return {id_: content for id_, (content, _) in (await documents(stub, name)).items()}


async def scores(stub: Any, name: str, query: str = QUESTION) -> tuple[tuple[str, float], ...]:
    """Return the documents that a search by vector finds, each with its cosine."""
    found = await stub.Search(
        pb.SearchRequest(
            collection=name,
            query=query,
            k=3,
            mode=retriever_pb.SEARCH_MODE_DENSE,
            consistency=retriever_pb.Consistency(fully_consistent=True),
        )
    )
    return tuple((hit.document_id, round(hit.scores.dense, 3)) for hit in found.hits)


async def ask(stub: Any, name: str, question: str = QUESTION, **fields: Any) -> pb.AskResponse:
    fields.setdefault("model", "extractive")
    answer: pb.AskResponse = await stub.Ask(
        pb.AskRequest(collection=name, question=question, passages=3, **fields)
    )
    return answer


async def gone(stub: Any, name: str) -> None:
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))


async def tables(stack: TestStack) -> tuple[int, int]:
    """Return how many tables and views of collections there are, and how many collections."""
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        cursor = await connection.execute(
            "SELECT count(*) FILTER (WHERE relkind IN ('r', 'v') AND relname ~ '_[0-9]+$'),"
            " (SELECT count(*) FROM retriever.collection)"
            " FROM pg_class WHERE relnamespace = 'retriever'::regnamespace"
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


async def test_a_collection_moves_to_a_model_of_another_dimension_and_back(stub: Any) -> None:
    async with new_collection(stub, shelf(1)) as name:
        before = await scores(stub, name)
        assert before[0][0].startswith("volcanoes")
        built = await moved(stub, name, embedding_model=SECOND_MODEL)
        compared = built[-1].compared
        assert compared.searches == len(SUBJECTS)
        assert 0.3 < compared.overlap < 0.999
        beside = await about(stub, f"{name}-next")
        assert (beside.embedding_model, beside.dimension) == (SECOND_MODEL, DIMENSION)
        assert await scores(stub, name) == before
        after = await scores(stub, f"{name}-next")
        assert after[0][0].startswith("volcanoes") and after != before

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await moved(stub, name, embedding_model=SECOND_MODEL, switch=True, least_overlap=0.999)
        assert reason(refused.value) == "CONFLICT"
        assert await scores(stub, name) == before

        await moved(stub, name, embedding_model=SECOND_MODEL, switch=True)
        try:
            here, there = await about(stub, name), await about(stub, f"{name}-next")
            assert (here.embedding_model, here.dimension) == (SECOND_MODEL, DIMENSION)
            assert there.embedding_model == EMBEDDED_MODEL
            assert (await scores(stub, name), await scores(stub, f"{name}-next")) == (after, before)

            # The way back has what was written since.
            await ingest(stub, name, [note("new", "All about a thing that is quite new.")])
            await moved(stub, name, embedding_model=EMBEDDED_MODEL, switch=True)
            assert (await about(stub, name)).embedding_model == EMBEDDED_MODEL
            assert await scores(stub, name) == before
            assert (await scores(stub, name, "Which thing is quite new?"))[0][0] == "new"
            # And what stood there was not embedded again.
            versions = {version for _, version in (await documents(stub, name)).values()}
            assert versions == {1}
        finally:
            await gone(stub, f"{name}-next")


async def test_no_search_fails_or_mixes_models_while_they_change(stub: Any) -> None:
    searchers: list[list[tuple[tuple[str, float], ...]]] = [[], []]
    answered: list[tuple[tuple[str, float], ...]] = []
    done = asyncio.Event()
    written: dict[str, str] = {}

    async def search(seen: list[tuple[tuple[str, float], ...]]) -> None:
        while not done.is_set():
            seen.append(await scores(stub, name))

    async def question() -> None:
        while not done.is_set():
            answer = await ask(stub, name, mode=retriever_pb.SEARCH_MODE_DENSE)
            hits = [it.hit for it in answer.passages]
            answered.append(
                tuple(sorted((hit.document_id, round(hit.scores.dense, 3)) for hit in hits))
            )

    async def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            # Deleted and made anew: each time its versions begin with 1.
            id_ = f"ledger {number % 3}"
            document = note(id_, f"Ledger {number % 3} says on its page {number}: paid.")
            if id_ in written:
                await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id=id_))
                del written[id_]
            (answer,) = await ingest(stub, name, [document])
            assert answer.HasField("ingested"), answer
            written[id_] = document.content
            await asyncio.sleep(0.3)

    async with new_collection(stub, shelf(2)) as name:
        old = await scores(stub, name)
        asked = await ask(stub, name, mode=retriever_pb.SEARCH_MODE_DENSE)
        work = [*map(search, searchers), question(), write()]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            events = await moved(stub, name, embedding_model=SECOND_MODEL, switch=True)
            assert events[-1].HasField("switched")
            new = await scores(stub, name)
            for _ in range(200):
                if all(new in seen for seen in searchers) and len(answered) > 2:
                    break
                await asyncio.sleep(0.05)
        finally:
            done.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await gone(stub, f"{name}-next")
        assert [it for it in results if it is not None] == []
        assert new != old
        for seen in searchers:
            # None of the old model after one of the new one, and no third.
            assert {old, new} == set(seen)
            assert seen == [old] * seen.count(old) + [new] * seen.count(new)
        assert len(set(answered)) <= 2
        found = await contents(stub, name)
        assert {id_: found.get(id_) for id_ in written} == written
        assert {it for it in found if it.startswith("ledger")} == set(written)
        # What was kept with the old model is not served with the new one.
        again = await ask(stub, name, mode=retriever_pb.SEARCH_MODE_DENSE)
        fresh = await ask(
            stub, name, mode=retriever_pb.SEARCH_MODE_DENSE, cache=pb.CACHE_POLICY_NONE
        )
        cosines = [[it.hit.scores.dense for it in each.passages] for each in (asked, again, fresh)]
        assert cosines[1] == pytest.approx(cosines[2], abs=1e-3)
        assert cosines[0] != pytest.approx(cosines[1], abs=1e-3)


async def test_kept_answers_and_near_ones_are_of_one_model(stub: Any) -> None:
    async with new_collection(stub, shelf(1)) as name:
        first = await ask(stub, name)
        kept = await ask(stub, name)
        assert kept.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT
        await moved(stub, name, embedding_model=SECOND_MODEL, switch=True)
        try:
            after = await ask(stub, name)
            assert after.cache.use.outcome == cache_pb.CACHE_OUTCOME_MISS
            of_old = {it.hit.scores.dense for it in first.passages}
            assert not of_old & {it.hit.scores.dense for it in after.passages}
            # The one of before finds again what is its own.
            beside = await ask(stub, f"{name}-next")
            assert [it.hit.scores.dense for it in beside.passages] == pytest.approx(
                [it.hit.scores.dense for it in first.passages], abs=1e-3
            )
        finally:
            await gone(stub, f"{name}-next")


@asynccontextmanager
async def begun(stub: Any, name: str, documents: int) -> AsyncIterator[Any]:
    """Yield a call that has brought in at least so many documents."""
    call = stub.ReembedCollection(
        pb.ReembedCollectionRequest(collection=name, embedding_model=SECOND_MODEL, switch=True)
    )
    async for event in call:
        assert not event.HasField("switched")
        if event.copied.documents >= documents:
            break
    yield call
    call.cancel()


async def test_a_call_that_is_cancelled_changes_nothing_and_can_be_resumed(
    stub: Any, stack: TestStack
) -> None:
    async with new_collection(stub, shelf(4)) as name:
        before = await scores(stub, name)
        async with begun(stub, name, 5) as call:
            call.cancel()
        whole = len(SUBJECTS) * 4
        assert await scores(stub, name) == before
        at_first = (await about(stub, f"{name}-next")).document_count
        assert 0 < at_first < whole
        await moved(stub, name, embedding_model=SECOND_MODEL, switch=True)
        found = await documents(stub, name)
        assert len(found) == whole
        assert {version for _, version in found.values()} == {1}
        await gone(stub, f"{name}-next")
    after, collections = await tables(stack)
    assert after == 7 * collections


async def once_back(stub: Any, name: str) -> retriever_pb.Collection:
    """Return a collection when the gateway has been started again."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await about(stub, name)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.1)


async def test_a_gateway_that_is_killed_loses_nothing(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, shelf(4)) as name:
        before = await scores(stub, name)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with begun(stub, name, 5) as call:
                os.kill(stack.pid("gateway"), signal.SIGKILL)
                async for event in call:
                    assert not event.HasField("switched")
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await once_back(stub, name)).embedding_model == EMBEDDED_MODEL
        assert await scores(stub, name) == before
        assert 0 < (await about(stub, f"{name}-next")).document_count < len(SUBJECTS) * 4
        await moved(stub, name, embedding_model=SECOND_MODEL, switch=True)
        assert (await about(stub, name)).embedding_model == SECOND_MODEL
        there, beside = await documents(stub, name), await documents(stub, f"{name}-next")
        assert there == beside
        await gone(stub, f"{name}-next")


async def test_a_build_that_is_given_up_goes_whole(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, shelf(4)) as name:
        before = await scores(stub, name)
        async with begun(stub, name, 5) as call:
            # While it is built.
            await gone(stub, f"{name}-next")
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for event in call:
                    assert not event.HasField("switched")
            assert reason(ended.value) == "COLLECTION_NOT_FOUND"
        assert await scores(stub, name) == before
    after, collections = await tables(stack)
    assert after == 7 * collections


async def test_texts_that_begin_with_nothing_are_compared_all_the_same(stub: Any) -> None:
    blank = pb.Document(id="blank", content=f"{' ' * 300}{chr(10)}At last something about tides.")
    dense = pb.Document(id="dense", content="潮" * 120)
    async with new_collection(stub, [note("violins"), blank, dense]) as name:
        built = await moved(stub, name, embedding_model=SECOND_MODEL)
        assert built[-1].compared.searches == 3
        await gone(stub, f"{name}-next")
