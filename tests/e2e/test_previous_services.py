"""Each service as it was before the contracts last changed, alone beside the present others: it
serves, and tenants, keys, signatures and budgets hold, so that each can be rolled back alone."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.earlier import python_path
from support.gateway import gateway_stub, reason
from support.replica import database_variables, gateway_beside, running, service_beside
from support.stack import TestStack
from support.tenants import environment, gateway_metadata

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_local.process import StartError
from quintet_servicekit.identity import Identity
from quintet_servicekit.identity_token import IDENTITY_KEY, Signer
from quintet_servicekit.key_files import write_key_pair
from quintet_servicekit.settings import SigningSettings

BEES, ANTS = ([gateway_metadata(it)] for it in ("bees", "ants"))
HONEY = pb.Document(id="one", content="The bees make dark honey from the heather in August.")
CRUMBS = pb.Document(id="one", content="The ants make a home of crumbs below the heather.")
UNKNOWN = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
QUESTION = "What do they make of the heather?"
DAY = 700_000
"""Nano-units of a tenant's day: a few questions, by the prices below."""
PRICES = "currency: EUR\nprices:\n  - {hop: generator, model: '*', input_per_million: 1000000}\n"

DIRECT: dict[str, tuple[Any, str, Any]] = {
    "tokenizer": (TokenizerServiceStub, "ListModels", tokenizer_pb.ListModelsRequest()),
    "embedder": (EmbedderServiceStub, "ListModels", embedder_pb.ListModelsRequest()),
    "retriever": (
        RetrieverServiceStub,
        "ListCollections",
        retriever_pb.ListCollectionsRequest(),
    ),
    "generator": (GeneratorServiceStub, "ListModels", generator_pb.ListModelsRequest()),
}
"""A call of each service past the gateway."""


class Gateways:
    """Gateways that ask for keys or tokens, and the services' replicas behind them."""

    def __init__(self, stack: TestStack, folder: Path) -> None:
        self.stack = stack
        self._folder = folder
        prices = folder / "prices.yaml"
        prices.write_text(PRICES)
        self._settings = {
            "ACCESS__MODE": "keys",
            "ACCESS__KEY_FILE": str(stack.state_dir / "api-key"),
            "SIGNING__KEY": str(stack.state_dir / "identity.key"),
            "PRICES_FILE": str(prices),
            "CONTEXT_TOKENS": "64",
            "LIMITS__POLICY": json.dumps({"budget": {"day": DAY // 1_000}}),
            # Answers, and what was spent, are these gateways' own.
            "CACHE__NAMESPACE": f"previous-{secrets.token_hex(4)}",
            "CACHE__REDIS_TIMEOUT_SECONDS": "2",
        }
        for variables in (database_variables(stack, "gateway"), environment(folder)):
            for name, value in variables.items():
                self._settings[name.removeprefix("QUINTET_GATEWAY_")] = value

    @asynccontextmanager
    async def gateway(self, *, path: str = "", **settings: str) -> AsyncIterator[Any]:
        """Yield the stub of one; all share what they keep and count."""
        service = gateway_beside(self.stack, path=path, **{**self._settings, **settings})
        async with running(service) as address, gateway_stub(address) as stub:
            yield stub

    @asynccontextmanager
    async def service(self, name: str, path: str) -> AsyncIterator[str]:
        """Yield the address of a service that believes the stack's gateways, and none else."""
        settings = {
            "IDENTITY__REQUIRED": "true",
            "IDENTITY__PUBLIC_KEYS": str(self.stack.state_dir / "identity.pem"),
        }
        if name == "retriever":
            for variable, value in database_variables(self.stack, name).items():
                settings[variable.removeprefix("QUINTET_RETRIEVER_")] = value
        async with running(service_beside(self.stack, name, path=path, **settings)) as address:
            yield address

    def strangers_token(self, service: str) -> str:
        """Return an identity that another gateway signed."""
        private = self._folder / "stranger.key"
        write_key_pair(private, self._folder / "stranger.pem")
        return Signer(private, SigningSettings()).token(Identity("bees", "a stranger"), service)


@pytest.fixture
def gateways(stack: TestStack, tmp_path: Path) -> Gateways:
    return Gateways(stack, tmp_path)


def is_from(earlier: Path, service: str) -> bool:
    """Tell whether a service that is started with the path of then has the code of then."""
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", f"import quintet_{service} as it; print(it.__file__)"],
        env={"PYTHONPATH": python_path(earlier, service)},
        capture_output=True,
        text=True,
        check=True,
    )
    return loaded.stdout.startswith(str(earlier))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), reason(refused.value)


async def brought_in(
    stub: Any, collection: str, document: pb.Document, tenant: Sequence[tuple[str, str]]
) -> None:
    request = pb.IngestRequest(collection=collection, document=document)
    (done,) = [it async for it in stub.Ingest(iter([request]), metadata=tenant)]
    assert done.HasField("ingested"), done


async def serves_two_tenants(before: Any, present: Any) -> None:
    """Two tenants' collections of one name, filled through either, read through `before`."""
    name = f"test-{secrets.token_hex(6)}"
    for tenant, stub, document in ((BEES, before, HONEY), (ANTS, present, CRUMBS)):
        await stub.CreateCollection(pb.CreateCollectionRequest(name=name), metadata=tenant)
        await brought_in(stub, name, document, tenant)
    for tenant, word in ((BEES, "honey"), (ANTS, "crumbs")):
        search = pb.SearchRequest(collection=name, query=QUESTION)
        (hit,) = (await before.Search(search, metadata=tenant)).hits
        assert word in hit.text
        asked = pb.AskRequest(collection=name, question=QUESTION, abstain_below=0)
        answer = await before.Ask(asked, metadata=tenant)
        assert word in answer.answer
        assert answer.citations
        assert not answer.degradations
        assert answer.bill.cost_nanos > 0
        # Kept answers of one tenant are not the other's.
        assert (await before.Ask(asked, metadata=tenant)).answer == answer.answer
        asked.question += " Tell me."
        *_, last = [event async for event in before.AskStream(asked, metadata=tenant)]
        assert last.HasField("completed")
    # A document that replaces another is seen at once.
    changed = pb.Document(id="one", content="The bees make a pale wax from the heather.")
    await brought_in(before, name, changed, BEES)
    for stub in (before, present):
        fresh = pb.SearchRequest(collection=name, query=QUESTION)
        fresh.consistency.fully_consistent = True
        (hit,) = (await stub.Search(fresh, metadata=BEES)).hits
        assert "wax" in hit.text
    for stub, tenant in ((present, BEES), (before, ANTS)):
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name), metadata=tenant)
        gone = pb.SearchRequest(collection=name, query=QUESTION)
        not_there = (grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")
        assert await refusal(before.Search(gone, metadata=tenant)) == not_there


async def spends_its_budget(first: Any, *others: Any) -> None:
    """What a tenant spends at one gateway it can't spend again there, nor at another."""
    moths = [gateway_metadata(f"moths-{secrets.token_hex(4)}")]
    name = f"test-{secrets.token_hex(6)}"
    await first.CreateCollection(pb.CreateCollectionRequest(name=name), metadata=moths)
    await brought_in(first, name, HONEY, moths)

    def ask(stub: Any) -> Any:
        question = f"What do bees make in {secrets.token_hex(4)}?"
        asked = pb.AskRequest(collection=name, question=question, abstain_below=0)
        return stub.Ask(asked, metadata=moths)

    spent = 0
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        for _ in range(40):
            spent += (await ask(first)).bill.cost_nanos
    exhausted = (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert (refused.value.code(), reason(refused.value)) == exhausted
    assert 0 < spent <= DAY
    for other in others:
        assert await refusal(ask(other)) == exhausted
    await first.DeleteCollection(pb.DeleteCollectionRequest(name=name), metadata=moths)


@pytest.mark.parametrize("name", ["tokenizer", "embedder", "retriever", "generator"])
async def test_a_service_from_before_serves_the_present_gateway_and_nobody_else(
    gateways: Gateways, earlier: Path, name: str
) -> None:
    assert is_from(earlier, name)
    async with (
        gateways.service(name, python_path(earlier, name)) as address,
        gateways.gateway(**{f"{name.upper()}_ADDRESS": address}) as before,
        gateway_stub(gateways.stack.gateway) as present,
    ):
        await serves_two_tenants(before, present)
        await spends_its_budget(before)
        stub_of, method, request = DIRECT[name]
        async with grpc.aio.insecure_channel(address) as channel:
            call = getattr(stub_of(channel), method)
            stranger = [(IDENTITY_KEY, gateways.strangers_token(name))]
            for metadata in ([], stranger):
                assert await refusal(call(request, metadata=metadata)) == UNKNOWN


async def test_a_gateway_from_before_asks_for_keys_and_keeps_present_services_tenants_apart(
    gateways: Gateways, earlier: Path
) -> None:
    assert is_from(earlier, "gateway")
    path = python_path(earlier, "gateway")
    async with (
        gateways.gateway(path=path, LIMITS__POLICY="{}") as before,
        gateway_stub(gateways.stack.gateway) as present,
    ):
        await serves_two_tenants(before, present)
        status = await before.GetStatus(pb.GetStatusRequest(), metadata=BEES)
        assert {it.state for it in status.services} == {pb.SERVICE_STATE_SERVING}
        listing = pb.ListCollectionsRequest()
        for metadata in ([], [("authorization", "Bearer nothing")]):
            assert await refusal(before.ListCollections(listing, metadata=metadata)) == UNKNOWN


async def test_a_gateway_from_before_shares_budgets_or_does_not_start_with_a_policy_of_them(
    gateways: Gateways, earlier: Path
) -> None:
    """What it does not know it cannot keep: then it must not serve as if there were none."""
    path = python_path(earlier, "gateway")
    if not (earlier / "services/gateway/quintet_gateway/migrations/0007_spending.sql").exists():
        with pytest.raises(StartError, match=r"policy\.budget"):
            await gateways.gateway(path=path).__aenter__()
        return
    async with gateways.gateway(path=path) as before, gateways.gateway() as present:
        await spends_its_budget(before, present)
        await spends_its_budget(present, before)
