"""A caller who leaves, or whose deadline passes, leaves no work behind in any process."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from support.gateway import gateway_stub, new_collection
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

SERVICES = ("tokenizer", "embedder", "retriever", "gateway")
SENTENCES = 12_000
"""A document whose chunks keep the embedder busy for far longer than a test waits."""
_IN_FLIGHT = re.compile(r"^grpc_server_in_flight\{[^}]*\} (\S+)$", re.MULTILINE)


def in_flight(stack: TestStack, service: str) -> float:
    """Return how many calls a service has under way."""
    with urllib.request.urlopen(stack.endpoints[service]["metrics"], timeout=10) as response:
        text: str = response.read().decode()
    return sum(map(float, _IN_FLIGHT.findall(text)))


def cpu_ticks(pid: int) -> int:
    """Return the hundredths of a second that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def is_idle(stack: TestStack) -> bool:
    """Whether no service has a call, and the embedder does not compute."""
    counts = [await asyncio.to_thread(in_flight, stack, name) for name in SERVICES]
    before = cpu_ticks(stack.pid("embedder"))
    await asyncio.sleep(0.5)
    return not any(counts) and cpu_ticks(stack.pid("embedder")) - before < 10


async def large(collection: str, name: str) -> AsyncIterator[pb.IngestRequest]:
    content = " ".join(
        f"Sentence {i} of {name} tells of the number {i * i}." for i in range(SENTENCES)
    )
    yield pb.IngestRequest(collection=collection, document=pb.Document(id=name, content=content))


@pytest.mark.parametrize("way", ["leaves", "deadline passes"])
async def test_when_the_caller_of_an_ingest_is_gone_all_services_are_idle_again(
    stack: TestStack, way: str
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        timeout = 5.0 if way == "deadline passes" else None
        call = stub.Ingest(large(name, way), timeout=timeout)
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(in_flight, stack, "embedder"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        if timeout is None:
            call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED
        else:
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(10):
            while not await is_idle(stack):
                pass
