"""Kept answers: served at once while they hold, and never once they do not."""

from __future__ import annotations

import asyncio
import re
import secrets
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.replica import second_gateway
from support.stack import TestStack

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
CATS = pb.Document(id="cats", content="Cats sleep all day long. They purr when they are fed.")
WANTED = "What do bees make?"

MISS = cache_pb.CACHE_OUTCOME_MISS
HIT = cache_pb.CACHE_OUTCOME_HIT
REVALIDATED = cache_pb.CACHE_OUTCOME_REVALIDATED
BYPASS = cache_pb.CACHE_OUTCOME_BYPASS


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def ask(collection: str, question: str = WANTED, **fields: Any) -> pb.AskRequest:
    return pb.AskRequest(collection=collection, question=question, **fields)


def after(token: str) -> retriever_pb.Consistency:
    return retriever_pb.Consistency(at_least_as_fresh=token)


def outcome(response: pb.AskResponse) -> int:
    return response.cache.use.outcome


def hops(response: pb.AskResponse) -> list[str]:
    return [hop.method for hop in response.trail.hops]


async def put(stub: Any, collection: str, *documents: pb.Document) -> str:
    """Return the token of the last write."""
    done = await ingest(stub, collection, documents)
    return done[-1].ingested.consistency_token


async def test_an_answer_is_served_again_without_any_call(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        first = await stub.Ask(ask(name))
        again = await stub.Ask(ask(name))
    assert (outcome(first), outcome(again)) == (MISS, HIT)
    assert hops(first)[-1] == "GenerateStream"
    assert hops(again) == []
    assert (again.answer, again.citations) == (first.answer, first.citations)
    assert again.passages == first.passages
    assert again.cache.use.saved.ToNanoseconds() > 0
    assert again.cache.saved == first.usage
    assert again.usage == pb.Usage()
    assert again.consistency_token == first.consistency_token
    assert again.cache.use.epoch == 1


async def test_a_stream_of_a_kept_answer_says_what_the_answer_says(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        whole = await stub.Ask(ask(name))
        events = [event async for event in stub.AskStream(ask(name))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["passages_found", "text_delta", "citation", "sentence", "completed"]
    assert events[1].text_delta.text == whole.answer
    assert events[-1].completed.cache.use.outcome == HIT


async def test_a_write_that_touches_a_passage_is_in_the_next_answer(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
        await put(stub, name, pb.Document(id="bees", content="Bees make wax. Wax is soft."))
        answer = await stub.Ask(ask(name))
    assert outcome(answer) == MISS
    assert "wax" in answer.answer


async def test_a_new_document_that_belongs_to_the_passages_is_in_the_next_answer(
    stub: Any,
) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
        await put(stub, name, pb.Document(id="more", content="Bees also make wax."))
        answer = await stub.Ask(ask(name))
    assert outcome(answer) == MISS
    assert {"bees", "more"} == {it.hit.document_id for it in answer.passages}


async def test_a_kept_answer_to_a_question_that_quotes_is_looked_at_like_a_new_one(
    stub: Any,
) -> None:
    async with new_collection(stub, [BEES]) as name:
        question = ask(name, question='What do "honey bees" make?')
        await stub.Ask(question)
        await put(stub, name, CATS)
        again = await stub.Ask(question)
    assert "honey" in again.answer


async def test_an_unrelated_write_leaves_an_answer_in_place(stub: Any) -> None:
    """The passages are as many as the request wants, and the new chunk ranks below."""
    bees = [
        pb.Document(id=f"bees-{i}", content=f"Bees make honey number {i}. Bees make it daily.")
        for i in range(4)
    ]
    async with new_collection(stub, bees) as name:
        question = ask(name, passages=2, mode=retriever_pb.SEARCH_MODE_DENSE)
        await stub.Ask(question)
        token = await put(stub, name, CATS)
        found = await stub.Ask(question)
        at_once = await stub.Ask(question)
    assert outcome(found) == REVALIDATED
    assert hops(found) == ["Search"]
    assert found.consistency_token == token
    assert outcome(at_once) == HIT
    assert at_once.consistency_token == token


async def test_a_deleted_document_is_not_cited_any_more(stub: Any) -> None:
    async with new_collection(stub, [BEES, CATS]) as name:
        before = await stub.Ask(ask(name))
        assert "bees" in {it.hit.document_id for it in before.passages}
        await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id="bees"))
        now = await stub.Ask(ask(name))
        assert "bees" not in {it.hit.document_id for it in now.passages}


async def test_nothing_found_is_kept_until_something_is_there(stub: Any) -> None:
    async with new_collection(stub) as name:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Ask(ask(name))
            assert reason(caught.value) == "NO_PASSAGES"
        explained = await stub.ExplainCache(pb.ExplainCacheRequest(request=ask(name)))
        assert explained.answer_epoch == explained.collection_epoch
        assert explained.cache.use.outcome == HIT
        await put(stub, name, BEES)
        assert outcome(await stub.Ask(ask(name))) == MISS


async def test_a_token_is_honoured_by_every_replica(stub: Any, stack: TestStack) -> None:
    async with (
        second_gateway(stack) as address,
        gateway_stub(address) as other,
        new_collection(stub, [BEES]) as name,
    ):
        await other.Ask(ask(name))
        for round_number in range(5):
            made = f"Bees make thing{round_number}."
            token = await put(stub, name, pb.Document(id="bees", content=made))
            answer = await other.Ask(ask(name, consistency=after(token)))
            assert answer.answer == made
            assert answer.passages[0].hit.document_version == round_number + 2


async def test_replicas_share_what_they_keep(stub: Any, stack: TestStack) -> None:
    async with (
        second_gateway(stack) as address,
        gateway_stub(address) as other,
        new_collection(stub, [BEES]) as name,
    ):
        first = await stub.Ask(ask(name))
        theirs = await other.Ask(ask(name))
        again = await other.Ask(ask(name))
    assert outcome(theirs) in (HIT, REVALIDATED)
    assert theirs.cache.use.store == cache_pb.CACHE_STORE_REDIS
    assert theirs.answer == first.answer
    assert outcome(again) == HIT
    assert again.cache.use.store == cache_pb.CACHE_STORE_MEMORY


async def test_who_wants_the_database_is_answered_from_it(stub: Any) -> None:
    wanted = retriever_pb.Consistency(fully_consistent=True)
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
        answer = await stub.Ask(ask(name, consistency=wanted))
    assert outcome(answer) == REVALIDATED
    assert hops(answer) == ["Search"]


@pytest.mark.parametrize(
    "fields", [{"cache": pb.CACHE_POLICY_NONE}, {"temperature": 0.9}], ids=["none", "chance"]
)
async def test_what_may_not_be_kept_is_made_each_time(stub: Any, fields: dict[str, Any]) -> None:
    async with new_collection(stub, [BEES]) as name:
        answers = [await stub.Ask(ask(name, **fields)) for _ in range(2)]
        explained = await stub.ExplainCache(pb.ExplainCacheRequest(request=ask(name, **fields)))
    assert {outcome(answer) for answer in answers} == {BYPASS}
    assert {hops(answer)[-1] for answer in answers} == {"GenerateStream"}
    assert explained.cache.use.outcome == BYPASS


async def test_collections_do_not_share_answers(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name, new_collection(stub, [CATS]) as other:
        await stub.Ask(ask(name))
        answer = await stub.Ask(ask(other))
        assert outcome(answer) == MISS
        assert {it.hit.document_id for it in answer.passages} == {"cats"}


async def test_a_collection_made_anew_shares_nothing_with_its_predecessor(stub: Any) -> None:
    name = f"test-{secrets.token_hex(6)}"
    for document in (BEES, CATS):
        await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
        await put(stub, name, document)
        answer = await stub.Ask(ask(name))
        assert outcome(answer) == MISS
        assert {it.hit.document_id for it in answer.passages} == {document.id}
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(ask(name))
        assert reason(caught.value) == "COLLECTION_NOT_FOUND"


async def test_equal_questions_at_once_are_answered_by_one(stub: Any, stack: TestStack) -> None:
    def generated() -> float:
        return counter(stack, "generator", "grpc_server_started_total", "GenerateStream")

    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name, "Is honey sweet?"))  # the collection is known from now on
        before = generated()
        answers = await asyncio.gather(*(stub.Ask(ask(name)) for _ in range(200)))
        assert generated() - before == 1
    assert len({answer.answer for answer in answers}) == 1
    outcomes = [outcome(answer) for answer in answers]
    assert outcomes.count(MISS) == 1
    assert set(outcomes) <= {MISS, cache_pb.CACHE_OUTCOME_SHARED, HIT}
    assert len({answer.trail.trace_id for answer in answers}) == 200


def counter(stack: TestStack, service: str, metric: str, label: str) -> float:
    with urllib.request.urlopen(stack.endpoints[service]["metrics"]) as page:
        text = page.read().decode()
    found = re.findall(rf"^{metric}\{{[^}}]*{label}[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_a_purged_question_is_answered_anew(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
        purged = await stub.PurgeCache(pb.PurgeCacheRequest(question=ask(name)))
        assert purged.dropped == 1
        assert outcome(await stub.Ask(ask(name))) == MISS
        purged = await stub.PurgeCache(pb.PurgeCacheRequest(question=ask(name, "Never asked?")))
        assert purged.dropped == 0


@pytest.mark.parametrize("what", ["document", "collection", "everything"])
async def test_what_is_purged_is_made_anew(stub: Any, what: str) -> None:
    async with new_collection(stub, [BEES]) as name:
        subjects: dict[str, dict[str, Any]] = {
            "document": {"document": pb.PurgeCacheRequest.DocumentName(collection=name, id="bees")},
            "collection": {"collection": name},
            "everything": {"everything": True},
        }
        await stub.Ask(ask(name))
        await stub.PurgeCache(pb.PurgeCacheRequest(**subjects[what]))
        assert outcome(await stub.Ask(ask(name))) == MISS


async def test_a_purge_of_nothing_is_refused(stub: Any) -> None:
    for request in (pb.PurgeCacheRequest(), pb.PurgeCacheRequest(everything=False)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PurgeCache(request)
        assert reason(caught.value) == "INVALID_FIELD"


async def test_stats_tell_the_tiers_of_all_services(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        for _ in range(2):
            await stub.Ask(ask(name))
    stats = await stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert [it.service for it in stats.services] == [
        "embedder",
        "gateway",
        "generator",
        "retriever",
        "tokenizer",
    ]
    assert all(it.reachable for it in stats.services)
    tiers = {tier.tier: tier for it in stats.services for tier in it.tiers}
    assert {"l1", "l2", "l3", "completions", "counts"} <= set(tiers)
    assert tiers["l1"].hits >= 1
    assert tiers["l1"].entries >= 1
    assert all(tier.bytes <= tier.max_bytes for tier in tiers.values())


async def test_a_token_of_another_collection_is_refused(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name, new_collection(stub) as other:
        token = await put(stub, name, CATS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(ask(other, consistency=after(token)))
    assert reason(caught.value) == "INVALID_FIELD"


async def test_a_near_question_is_served_only_to_who_allows_it(stub: Any) -> None:
    near = "What is it that bees make?"
    async with new_collection(stub, [BEES]) as name:
        first = await stub.Ask(ask(name, "How much honey do the bees make?"))
        exact = await stub.Ask(ask(name, "How much honey do bees make?"))
        served = await stub.Ask(
            ask(name, "how much honey do bees make", cache=pb.CACHE_POLICY_SEMANTIC)
        )
        other = await stub.Ask(ask(name, near, cache=pb.CACHE_POLICY_SEMANTIC))
    assert outcome(exact) == MISS
    assert served.cache.use.tier == "l1-semantic"
    assert served.cache.question in (
        "How much honey do the bees make?",
        "How much honey do bees make?",
    )
    assert served.cache.similarity > 0.9
    assert served.answer == first.answer
    assert outcome(other) == MISS


async def test_without_redis_everything_works_and_with_it_again_at_once(
    stub: Any, stack: TestStack
) -> None:
    async with new_collection(stub, [BEES]) as name:
        assert outcome(await stub.Ask(ask(name))) == MISS
        stack.stop("valkey")
        try:
            without = await stub.Ask(ask(name))
            token = await put(stub, name, pb.Document(id="bees", content="Bees make wax."))
            changed = await stub.Ask(ask(name, consistency=after(token)))
            again = await stub.Ask(ask(name))
        finally:
            stack.start("valkey")
        assert without.answer == "Bees make honey."
        assert not without.cache.possibly_stale
        assert changed.answer == again.answer == "Bees make wax."
        async with asyncio.timeout(5):
            while outcome(await stub.Ask(ask(name))) != HIT:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
