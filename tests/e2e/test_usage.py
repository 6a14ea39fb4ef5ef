"""Usage as callers see it, summed up behind their calls."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.command_line import Quintet
from support.gateway import gateway_stub, new_collection, reason
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import usage_service_pb2 as usage_pb
from quintet.gateway.v1.usage_service_pb2_grpc import UsageServiceStub
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_cli.commands.usage import BAR, bar

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


async def usage_of(
    stack: TestStack, collection: str, calls: int, *, wait: bool = True
) -> dict[str, usage_pb.UsageRow]:
    """Return a collection's usage by model, once it has that many calls, or as it is."""
    groups = [usage_pb.USAGE_GROUP_COLLECTION, usage_pb.USAGE_GROUP_MODEL]
    request = usage_pb.GetUsageRequest(group_by=groups, page_size=1_000)
    async with asyncio.timeout(30), grpc.aio.insecure_channel(stack.gateway) as channel:
        stub: Any = UsageServiceStub(channel)
        while True:
            response = await stub.GetUsage(request)
            rows = {it.model: it for it in response.rows if it.collection == collection}
            if not wait or ("" in rows and rows[""].calls >= calls):
                return rows
            await asyncio.sleep(0.1)


async def test_usage_is_the_sum_of_the_bills(stack: TestStack, stub: Any) -> None:
    bills = []
    question = f"What do bees make in {secrets.token_hex(4)}?"
    async with new_collection(stub) as name:
        documents = [
            pb.IngestRequest(collection=name, document=pb.Document(id=it, content=f"{it}: honey."))
            for it in ("one", "two", "three")
        ]
        bills += [it.bill async for it in stub.Ingest(iter(documents))]
        ask = pb.AskRequest(collection=name, question=question, abstain_below=0)
        for _ in range(2):
            bills.append((await stub.Ask(ask)).bill)
        async for event in stub.AskStream(ask):
            if event.HasField("completed"):
                bills.append(event.completed.bill)
        # Of names that callers make up there are no sums.
        made_up = f"made-up-{secrets.token_hex(6)}"
        document = pb.Document(id="a", content="Honey.")
        async for refused in stub.Ingest(
            iter([pb.IngestRequest(collection=made_up, document=document)])
        ):
            assert refused.HasField("refused")
        for call in (
            stub.Ask(pb.AskRequest(collection=made_up, question=question)),
            stub.Search(pb.SearchRequest(collection=made_up, query="honey")),
            stub.Search(
                pb.SearchRequest(
                    collection=made_up, query="honey", mode=retriever_pb.SEARCH_MODE_LEXICAL
                )
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as not_found:
                await call
            assert reason(not_found.value) == "COLLECTION_NOT_FOUND"
        bills.append((await stub.Search(pb.SearchRequest(collection=name, query="honey"))).bill)
        # One that fails has its costs, too; one that breaks its bounds is no call.
        nothing = pb.AskRequest(collection=name, question=" ")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Ask(nothing)
        rows = await usage_of(stack, name, 7)
    assert not await usage_of(stack, made_up, 0, wait=False)
    assert rows[""].calls == 7
    assert sum(it.cost_nanos for it in rows.values()) >= sum(it.cost_nanos for it in bills) > 0
    assert sum(it.saved_nanos for it in rows.values()) == sum(it.saved_nanos for it in bills) > 0
    embedded = sum(line.embedding_tokens for bill in bills for line in bill.lines)
    assert sum(it.embedding_tokens for it in rows.values()) == embedded > 0
    generators = {line.model for bill in bills for line in bill.lines if line.hop == "generator"}
    assert all(rows[model].calls >= 1 for model in generators)


async def test_the_command_shows_usage_for_people_spreadsheets_and_scripts(
    stack: TestStack, stub: Any, quintet: Quintet
) -> None:
    async with new_collection(stub, [BEES]) as name:
        await usage_of(stack, name, 1)
    for_people, as_csv, as_json = [
        await asyncio.to_thread(
            quintet, "usage", "--address", stack.gateway, "--by", "collection", *more
        )
        for more in ([], ["--csv", "-"], ["--json"])
    ]
    line = next(it for it in for_people.out.splitlines() if it.startswith(name))
    assert "USD" in line
    assert any("█" in it for it in for_people.out.splitlines())
    row = next(it for it in csv.DictReader(io.StringIO(as_csv.out)) if it["collection"] == name)
    assert (row["calls"], row["currency"]) == ("1", "USD")
    told = [json.loads(it) for it in as_json.out.splitlines()]
    mine = next(it for it in told if it.get("collection") == name)
    assert mine["cost_nanos"] == row["cost_nanos"]
    with_bars = [bar(share) for share in (0, 1e-9, 0.5, 1)]
    assert [len(it) for it in with_bars] == [0, 1, BAR // 2, BAR]
