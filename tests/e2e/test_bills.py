"""The bill is in the answer, and in the trailers whatever way a call ends."""

from __future__ import annotations

import secrets
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from support.gateway import gateway_stub, new_collection, reason
from support.stack import TestStack

from quintet.gateway.v1 import bill_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def ask(collection: str, question: str = "What do bees make?", **fields: Any) -> pb.AskRequest:
    return pb.AskRequest(collection=collection, question=question, **fields)


def scraped(url: str) -> str:
    with urllib.request.urlopen(url) as page:
        return str(page.read().decode())


async def trailers(call: Any) -> dict[str, Any]:
    return dict(cast(Any, await call.trailing_metadata()))


def billed(told: dict[str, Any]) -> bill_pb2.Bill:
    """The bill of the trailers, which agree with each other."""
    bill = bill_pb2.Bill.FromString(told["quintet-cost-bill-bin"])
    assert told["quintet-cost-nanos"] == str(bill.cost_nanos)
    assert told["quintet-cost-saved-nanos"] == str(bill.saved_nanos)
    return bill


async def test_an_answers_bill_has_each_hop_and_its_trailers_say_the_same(stub: Any) -> None:
    # No other test asks this, so that no cache of any service has it.
    question = f"What do bees make in {secrets.token_hex(4)}?"
    async with new_collection(stub, [BEES]) as name:
        call = stub.Ask(ask(name, question, abstain_below=0.0))
        response = await call
        told = billed(await trailers(call))
    bill = response.bill
    assert bill.currency == "USD"
    lines = {it.hop: it for it in bill.lines}
    assert lines.keys() >= {"embedder", "retriever", "tokenizer", "generator"}
    assert bill.cost_nanos == sum(it.cost_nanos for it in bill.lines) > 0
    assert lines["embedder"].embedding_tokens == response.usage.embedding_tokens
    generated = lines["generator"]
    assert generated.input_tokens == response.usage.prompt_tokens
    assert generated.output_tokens == response.usage.completion_tokens
    assert generated.model == response.model
    assert not any(it.unpriced for it in bill.lines)
    assert told == bill


async def test_a_kept_answer_costs_nothing_and_tells_what_it_saved(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        first = await stub.Ask(ask(name))
        again = await stub.Ask(ask(name))
        call = stub.AskStream(ask(name))
        events = [event async for event in call]
        told = billed(await trailers(call))
    assert again.bill.cost_nanos == 0
    assert again.bill.saved_nanos == first.bill.cost_nanos + first.bill.saved_nanos > 0
    assert events[-1].completed.bill == told
    assert told == again.bill


async def test_a_hops_own_cache_saves_in_the_bill_of_a_new_answer(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
        again = await stub.Ask(ask(name, passages=1))
    embedder = next(it for it in again.bill.lines if it.hop == "embedder")
    assert (embedder.cost_nanos, embedder.embedding_tokens) == (0, 0)
    assert embedder.saved_nanos > 0


async def test_a_failed_questions_bill_is_in_its_trailers(stub: Any) -> None:
    async with new_collection(stub) as name:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Ask(ask(name))
    assert reason(failed.value) == "NO_PASSAGES"
    told = dict(cast(Any, failed.value.trailing_metadata()))
    assert {it.hop for it in billed(told).lines} >= {"embedder", "retriever"}
    assert billed(told).cost_nanos > 0


async def test_searches_and_documents_are_billed(stub: Any) -> None:
    async with new_collection(stub) as name:
        call = stub.Ingest(
            iter(
                [
                    pb.IngestRequest(collection=name, document=BEES),
                    pb.IngestRequest(collection="no-such-collection", document=BEES),
                ]
            )
        )
        acknowledged = sorted([it async for it in call], key=lambda it: it.index)
        whole = billed(await trailers(call))
        found = await stub.Search(pb.SearchRequest(collection=name, query="sweet bees"))
    brought, refused = acknowledged
    embedder = next(it for it in brought.bill.lines if it.hop == "embedder")
    assert embedder.embedding_tokens <= brought.ingested.tokens
    assert brought.bill.cost_nanos > 0
    # Looking for its collection took the retriever's time.
    assert refused.HasField("refused")
    assert refused.bill.cost_nanos > 0
    assert abs(whole.cost_nanos - brought.bill.cost_nanos - refused.bill.cost_nanos) <= 10
    assert {it.hop for it in found.bill.lines} >= {"embedder", "retriever"}
    assert found.bill.cost_nanos > 0


async def test_costs_are_in_the_metrics(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(ask(name))
    told = scraped(stack.endpoints["gateway"]["metrics"])
    assert 'quintet_cost_micros_total{hop="retriever",model=""}' in told
    assert 'quintet_cost_saved_micros_total{hop="embedder"' in told
