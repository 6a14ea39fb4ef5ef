"""Three times and ten times more questions than can be answered, and questions beside an
ingest, over the real services.

The bench measures the same for longer (`bench/overload.py`); here the bounds leave room
for other work on the machine.
"""

from __future__ import annotations

import asyncio
import secrets
import urllib.request
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.gateway import gateway_stub
from support.stack import TestStack

from bench.corpus import documents
from bench.overload import COLLECTION, DEADLINE, in_time
from bench.worker import running_worker
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_embedder.settings import Settings


@pytest.fixture(scope="module")
def reference(stack: TestStack) -> None:
    """A collection to ask of."""
    with grpc.insecure_channel(stack.gateway) as channel:
        stub = GatewayServiceStub(channel)
        stub.CreateCollection(pb.CreateCollectionRequest(name=COLLECTION))
        requests = (
            pb.IngestRequest(
                collection=COLLECTION, document=pb.Document(id=name, title=name, content=content)
            )
            for name, content in documents(30_000).items()
        )
        for response in stub.Ingest(requests):
            assert response.HasField("ingested")


@pytest.mark.usefixtures("reference")
async def test_overload_costs_few_answers_and_is_over_when_it_ends(
    stack: TestStack, tmp_path: Path
) -> None:
    arguments = (stack.gateway, COLLECTION)
    async with running_worker("open_loop", *arguments, log_file=tmp_path / "load.log") as ask:
        await ask(callers=4, seconds=1.0, deadline=30.0)
        alone = await ask(callers=16, seconds=2.0, deadline=30.0)
        capacity = len(in_time(alone, 30.0)) / 2.0
        assert capacity > 0
        outcomes: dict[float, set[str]] = {}
        answered: dict[float, float] = {}
        for load, seconds in ((3.0, 5.0), (10.0, 3.0)):
            calls = await ask(rate=load * capacity, seconds=seconds, deadline=DEADLINE)
            outcomes[load] = {outcome for _, _, outcome in calls}
            # The first second and a half pass before the limit has found its place.
            steady = [it for it in in_time(calls, DEADLINE) if it[0] >= 1.5]
            answered[load] = len(steady) / (seconds - 1.5)
        after = await ask(rate=0.2 * capacity, seconds=4.0, deadline=DEADLINE)
        # Other work on the machine may have begun meanwhile.
        again = await ask(callers=16, seconds=2.0, deadline=30.0)
    assert "RESOURCE_EXHAUSTED" in outcomes[3.0]
    assert "INTERNAL" not in outcomes[3.0] | outcomes[10.0]
    assert answered[3.0] >= 0.4 * min(capacity, len(in_time(again, 30.0)) / 2.0)
    assert answered[10.0] >= 0.1 * capacity
    late = [(at, outcome) for at, _, outcome in after if at >= 3.0]
    assert "RESOURCE_EXHAUSTED" not in {outcome for _, outcome in late}
    assert "good" in {outcome for _, outcome in late}


class Ingesting:
    """Documents that are sent as fast as they are taken, and how many were acknowledged."""

    def __init__(self, collection: str) -> None:
        self._collection = collection
        self.acknowledged = 0

    async def stream(self, stub: Any) -> None:
        async for _ in stub.Ingest(self._documents()):
            self.acknowledged += 1

    async def _documents(self) -> AsyncIterator[pb.IngestRequest]:
        texts = [text for text in documents(300_000).values() if len(text) > 15_000]
        for text in cycle(texts):
            # Of no chunk is there a vector yet.
            new = secrets.token_hex(4)
            document = pb.Document(id=new, content=text.replace("\n\n", f" {new}\n\n"))
            yield pb.IngestRequest(collection=self._collection, document=document)


def in_bulk(stack: TestStack, service: str) -> tuple[float, float]:
    """Return how many bulk calls are under way at a service, and how many in line."""
    with urllib.request.urlopen(stack.endpoints[service]["metrics"]) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    samples = {(it.name, it.labels.get("priority")): it.value for f in families for it in f.samples}
    return (
        samples["quintet_admission_in_flight", "bulk"],
        samples["quintet_admission_waiting", None],
    )


@pytest.mark.usefixtures("reference")
async def test_a_question_does_not_stand_in_the_line_of_an_ingest(stack: TestStack) -> None:
    collection = f"test-{secrets.token_hex(6)}"
    ingesting = Ingesting(collection)
    most = Settings().admission.bulk_calls
    async with gateway_stub(stack.gateway) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name=collection))
        streams = [asyncio.create_task(ingesting.stream(stub)) for _ in range(3)]
        try:
            async with asyncio.timeout(60):
                under_way, in_line = 0.0, 0.0
                while under_way < most or in_line < most / 4:
                    assert not any(it.done() for it in streams)
                    await asyncio.sleep(0.05)
                    under_way, in_line = await asyncio.to_thread(in_bulk, stack, "embedder")
                    assert under_way <= most
            before = ingesting.acknowledged
            for number in range(3):
                request = pb.AskRequest(
                    collection=COLLECTION,
                    question=f"What is lambda? ({number})",
                    model="extractive",
                )
                await stub.Ask(request, timeout=30)
            # Three times behind all that was in line it would have been some sixty.
            assert ingesting.acknowledged - before < most
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.wait(streams)
            await stub.DeleteCollection(pb.DeleteCollectionRequest(name=collection))
