"""Budgets as callers meet them, over replicas of the gateway that come and go."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.days import the_same_day
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.replica import database_variables, gateway_beside, second_gateway
from support.stack import TestStack

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import usage_service_pb2 as usage_pb
from quintet.gateway.v1.usage_service_pb2_grpc import UsageServiceStub
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
PRICES = """
currency: EUR
prices:
  - {hop: generator, model: extractive, input_per_million: 1000000}
  - {hop: generator, model: "*", input_per_million: 1000000, output_per_million: 2000000}
"""
A_CALL = 2_450_000
"""Nano-units that a question costs at most at these prices and the default settings, roughly:
1,500 tokens of passages, 160 of the template and 256 of the answer, which are written too."""
A_SHORT_CALL = 280_000
"""The same with 64 tokens of passages and 8 of the answer."""


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    """The stack's own gateway, which has no budgets."""
    async with gateway_stub(stack.gateway) as stub:
        yield stub


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    return file


def settings(prices: Path, name: str, **budget: Any) -> dict[str, str]:
    """Settings of a gateway whose budgets are its own by `name`."""
    return {
        "LIMITS__POLICY": json.dumps({"budget": budget}),
        "PRICES_FILE": str(prices),
        "CACHE__NAMESPACE": name,
        "CACHE__REDIS_TIMEOUT_SECONDS": "2",
    }


def ask(collection: str, **fields: Any) -> pb.AskRequest:
    question = f"What do bees make in {secrets.token_hex(4)}?"
    return pb.AskRequest(collection=collection, question=question, abstain_below=0, **fields)


def told(error: grpc.aio.AioRpcError) -> tuple[dict[str, str], float]:
    """Return the metadata of an error's reason, and when to try again."""
    trailers = dict(cast(Any, error.trailing_metadata() or ()))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for it in status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details:
        for wanted in (info, retry):
            if it.Is(wanted.DESCRIPTOR):
                it.Unpack(wanted)
    return dict(info.metadata), retry.retry_delay.ToMilliseconds() / 1_000


async def test_two_gateways_at_once_do_not_pass_a_budget_and_kept_answers_are_served_beyond_it(
    stack: TestStack, stub: Any, prices: Path
) -> None:
    await the_same_day(120)
    limit = 4 * A_SHORT_CALL
    spent = kept = refused = 0
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        made = settings(prices, "two-budgets", day=limit // 1_000, warn_at=0.3)
        made["CONTEXT_TOKENS"] = "64"
        gateways = [
            await exits.enter_async_context(
                gateway_stub(await exits.enter_async_context(second_gateway(stack, **made)))
            )
            for _ in range(2)
        ]
        first = ask(name, max_tokens=8)
        spent += (await gateways[0].Ask(first)).bill.cost_nanos
        assert spent > 0
        error = None
        for _ in range(30):
            calls = [gateways[i % 2].Ask(ask(name, max_tokens=8)) for i in range(8)]
            for it in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(it, pb.AskResponse):
                    spent += it.bill.cost_nanos
                else:
                    assert isinstance(it, grpc.aio.AioRpcError)
                    assert reason(it) == "BUDGET_EXHAUSTED"
                    refused, error = refused + 1, it
            assert spent <= limit
            if limit - spent < A_SHORT_CALL:
                break
        while error is None or told(error)[1] <= 1:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while True:
                    call = gateways[0].Ask(ask(name, max_tokens=8))
                    spent += (await call).bill.cost_nanos
                    trailers = dict(cast(Any, await call.trailing_metadata()))
                    assert trailers["quintet-budget"] == "tenant day"
                    left = int(trailers["quintet-budget-remaining-nanos"])
                    assert 0 < left <= limit * 0.7
            error = caught.value
        assert spent <= limit
        metadata, again = told(error)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert metadata["budget"] == "tenant day"
        assert int(metadata["remaining_nanos"]) == limit - spent < int(metadata["needed_nanos"])
        assert 1 < again <= 86_400
        kept = (await gateways[1].Ask(first)).bill.saved_nanos
    assert kept > 0
    assert refused > 0


async def test_beyond_its_budget_a_tenant_is_served_in_the_cheap_way_if_its_policy_says_so(
    stack: TestStack, stub: Any, prices: Path
) -> None:
    await the_same_day(120)
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        made = settings(prices, "cheap-budget", day=1, then="cheap")
        address = await exits.enter_async_context(second_gateway(stack, **made))
        gateway = await exits.enter_async_context(gateway_stub(address))
        models = [it.model for it in (await gateway.Ask(ask(name))).trail.hops if it.model]
        assert "extractive" in models
        dear = ask(name, model="smollm2-135m-instruct", max_tokens=4)
        cheap = await gateway.Ask(dear)
        with pytest.raises(grpc.aio.AioRpcError) as wanted_whole:
            await gateway.Ask(
                ask(name, model="smollm2-135m-instruct", max_tokens=4, fail_if_degraded=True)
            )
        search = pb.SearchRequest(collection=name, query="honey in spring")
        search.refinement.rerank = True
        found = await gateway.Search(search)
        by_words = pb.SearchRequest(
            collection=name,
            query="honey in summer",
            mode=retriever_pb.SEARCH_MODE_LEXICAL,
            fail_if_degraded=True,
        )
        as_asked = await gateway.Search(by_words)
        search.fail_if_degraded = True
        with pytest.raises(grpc.aio.AioRpcError) as whole_search:
            await gateway.Search(search)
        [document] = await ingest(gateway, name, [pb.Document(id="new", content="Wasps don't.")])
    assert document.refused.reason == error_reason_pb2.ERROR_REASON_BUDGET_EXHAUSTED
    assert cheap.model == "extractive"
    [degradation] = cheap.degradations
    assert degradation.hop == "budget"
    assert degradation.cause == error_reason_pb2.ERROR_REASON_BUDGET_EXHAUSTED
    assert degradation.substitute == pb.SUBSTITUTE_EXTRACTIVE_ANSWER
    assert reason(wanted_whole.value) == reason(whole_search.value) == "BUDGET_EXHAUSTED"
    assert found.mode == as_asked.mode == retriever_pb.SEARCH_MODE_LEXICAL
    assert [it.document_id for it in found.hits] == ["bees"]
    assert [(it.hop, it.substitute) for it in found.degradations] == [
        ("budget", pb.SUBSTITUTE_LEXICAL_SEARCH),
        ("budget", pb.SUBSTITUTE_STEP_SKIPPED),
    ]
    assert {it.service for it in found.trail.hops} == {"retriever"}
    assert as_asked.hits
    assert not as_asked.degradations


async def test_a_gateway_that_is_killed_in_an_answer_holds_nothing_beyond_the_lease(
    stack: TestStack, stub: Any, prices: Path, tmp_path: Path
) -> None:
    await the_same_day(120)
    made = settings(prices, "killed-budget", day=A_CALL * 3 // 2 // 1_000)
    made |= {"USAGE__FOLDER": str(tmp_path / "usage")}
    environment = {
        key.removeprefix("QUINTET_GATEWAY_"): value
        for key, value in database_variables(stack, "gateway").items()
    }
    async with AsyncExitStack() as exits, new_collection(stub, [BEES]) as name:
        service = gateway_beside(stack, **made, **environment)
        exits.callback(service.close)
        dying = await service.start()
        exits.push_async_callback(service.stop, dying)
        living_at = await exits.enter_async_context(second_gateway(stack, **made, **environment))
        living = await exits.enter_async_context(gateway_stub(living_at))
        doomed = await exits.enter_async_context(gateway_stub(service.address))
        settled = (await doomed.Ask(ask(name))).bill.cost_nanos
        assert settled > 0

        # Six seconds, and five more: as long as what it holds may outlast it.
        slow = ask(name, model="smollm2-135m-instruct", max_tokens=256)
        stream = doomed.AskStream(slow, timeout=6)
        async for event in stream:
            if event.HasField("passages_found"):
                break
        os.kill(dying.pid, signal.SIGKILL)
        await dying.wait()
        with pytest.raises(grpc.aio.AioRpcError) as held:
            await living.Ask(ask(name))
        assert told(held.value)[1] == 1.0
        async with asyncio.timeout(40):
            while True:
                try:
                    again = await living.Ask(ask(name))
                    break
                except grpc.aio.AioRpcError as error:
                    assert reason(error) == "BUDGET_EXHAUSTED"
                    await asyncio.sleep(0.3)
        assert again.bill.cost_nanos > 0

        # What it had settled is counted, by itself or by the next with its folder.
        revived = await service.start()
        exits.push_async_callback(service.stop, revived)
        wanted = settled + again.bill.cost_nanos
        async with asyncio.timeout(40), grpc.aio.insecure_channel(living_at) as channel:
            usage: Any = UsageServiceStub(channel)
            groups = [usage_pb.USAGE_GROUP_COLLECTION]
            while True:
                found = await usage.GetUsage(usage_pb.GetUsageRequest(group_by=groups))
                rows = [it for it in found.rows if (it.collection, it.currency) == (name, "EUR")]
                if rows and rows[0].calls >= 2:
                    break
                await asyncio.sleep(0.1)
        assert (rows[0].calls, rows[0].cost_nanos) == (2, wanted)
        [state] = found.budgets
        assert (state.period, state.limit_nanos) == ("day", A_CALL * 3 // 2 // 1_000 * 1_000)
        assert state.spent_nanos >= wanted
