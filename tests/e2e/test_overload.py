"""Three times and ten times more questions than can be answered, over the real services.

The bench measures the same for longer (`bench/overload.py`); here the bounds leave room
for other work on the machine.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from support.stack import TestStack

from bench.corpus import documents
from bench.overload import COLLECTION, DEADLINE, in_time
from bench.worker import running_worker
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub


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
    assert "RESOURCE_EXHAUSTED" in outcomes[3.0]
    assert "INTERNAL" not in outcomes[3.0] | outcomes[10.0]
    assert answered[3.0] >= 0.5 * capacity
    assert answered[10.0] > 0
    late = [(at, outcome) for at, _, outcome in after if at >= 3.0]
    assert "RESOURCE_EXHAUSTED" not in {outcome for _, outcome in late}
    assert "good" in {outcome for _, outcome in late}
