"""Rolling restarts: two replicas of each service, ended and started in turn under load.

Required: no call fails, none is degraded, no document is lost, and each process ends with
status 0.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from support.stack import TestStack

from chaos.fleet import Replica, fleet_over
from chaos.report import Check
from chaos.suite import Options, Suite, Tell, own_stack
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_servicekit.channel import open_channel
from quintet_servicekit.settings import ChannelSettings

GATEWAY = "quintet.gateway.v1.GatewayService"
DEADLINE = 20.0
"""Seconds of each call: starting processes leave little of two cores."""
PAUSE = 0.1
"""Seconds between two calls of a caller: light load, for the same reason."""
SUBJECTS = ("bees", "wolves", "rivers", "bridges", "clocks", "engines", "harbours", "violins")


@dataclass
class Tally:
    """What became of the calls."""

    calls: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Content by document id."""
    lost: list[str] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)

    def checks(self) -> list[Check]:
        """Return what was required and what was found."""
        bad_ends = sum(status != 0 for status in self.statuses)
        return [
            Check("calls", self.calls.total(), "at least 100", self.calls.total() >= 100),
            Check("restarts", len(self.statuses), "at least 1", bool(self.statuses)),
            Check("calls that failed", len(self.failed), "none", not self.failed),
            Check("answers that were degraded", len(self.degraded), "none", not self.degraded),
            Check("acknowledged documents lost", len(self.lost), "none", not self.lost),
            Check("processes that did not end with status 0", bad_ends, "none", not bad_ends),
        ]


class Load:
    """Callers that ask, search and bring in documents until they are stopped."""

    def __init__(self, stub: Any, collection: str, tally: Tally) -> None:
        self._stub = stub
        self._collection = collection
        self._tally = tally
        self._numbers = itertools.count()

    async def caller(self, call: Callable[[int], Awaitable[None]]) -> None:
        """Make one kind of call again and again."""
        name = call.__name__
        for number in self._numbers:
            self._tally.calls[name] += 1
            try:
                await call(number)
            except grpc.aio.AioRpcError as error:
                self._tally.failed.append(f"{name}: {error.code().name} {error.details()}")
            await asyncio.sleep(PAUSE)

    @property
    def calls(self) -> list[Callable[[int], Awaitable[None]]]:
        """What the callers do, one each."""
        return [self.ask, self.ask_stream, self.search, self.ingest]

    def _question(self, number: int) -> pb.AskRequest:
        subject = SUBJECTS[number % len(SUBJECTS)]
        return pb.AskRequest(
            collection=self._collection,
            question=f"What is told of {subject} number {number}?",
            # Half of them may be answered from the cache.
            cache=pb.CACHE_POLICY_NONE if number % 2 else pb.CACHE_POLICY_UNSPECIFIED,
        )

    async def ask(self, number: int) -> None:
        """Ask for a whole answer."""
        self._note("ask", await self._stub.Ask(self._question(number), timeout=DEADLINE))

    async def ask_stream(self, number: int) -> None:
        """Ask for an answer as it is made."""
        stream = self._stub.AskStream(self._question(number), timeout=DEADLINE)
        events = [event async for event in stream]
        if events and events[-1].HasField("completed"):
            self._note("ask_stream", events[-1].completed)
        else:
            self._tally.failed.append("ask_stream: ended without its last message")

    async def search(self, number: int) -> None:
        """Search."""
        request = pb.SearchRequest(
            collection=self._collection, query=f"{SUBJECTS[number % len(SUBJECTS)]} {number}"
        )
        self._note("search", await self._stub.Search(request, timeout=DEADLINE))

    async def ingest(self, number: int) -> None:
        """Bring in three new documents."""
        documents = [
            pb.Document(id=f"d-{number}-{i}", content=f"Document {i} of load number {number}.")
            for i in range(3)
        ]
        requests = [
            pb.IngestRequest(collection=self._collection, document=it, request_id=str(uuid.uuid4()))
            for it in documents
        ]
        contents = {it.id: it.content for it in documents}
        async for response in self._stub.Ingest(iter(requests), timeout=DEADLINE):
            if response.HasField("refused"):
                self._tally.failed.append(f"ingest: {response.refused}")
            else:
                identifier = response.document_id
                self._tally.acknowledged[identifier] = contents.pop(identifier)
        self._tally.failed += [f"ingest: {it} was not acknowledged" for it in contents]

    def _note(self, name: str, response: Any) -> None:
        self._tally.degraded += [f"{name}: {it}" for it in response.degradations]


async def roll(stack: TestStack, tell: Tell, rounds: int, *, beside: bool = False) -> Tally:
    """Restart each replica `rounds` times in turn, one at a time, under load.

    With `beside` the stack's own are the other replicas, and are left alone; all of the
    fleet but its gateway are restarted at once.
    """
    tally = Tally()
    async with fleet_over(stack, beside=beside) as fleet:
        *behind, gateway = fleet.replicas
        turns = [behind, [gateway]] if beside else [[it] for it in fleet.replicas]
        channel = open_channel(fleet.target("gateway"), GATEWAY, ChannelSettings())
        stub = GatewayServiceStub(channel)
        try:
            await _roll(turns * rounds, stub, tally, tell)
        finally:
            await channel.close(None)
    return tally


async def _roll(turns: Sequence[Sequence[Replica]], stub: Any, tally: Tally, tell: Tell) -> None:
    collection = f"rolling-{uuid.uuid4().hex[:8]}"
    await stub.CreateCollection(pb.CreateCollectionRequest(name=collection), wait_for_ready=True)
    load = Load(stub, collection, tally)
    for number, subject in enumerate(SUBJECTS):
        request = pb.IngestRequest(
            collection=collection,
            document=pb.Document(id=subject, content=f"Much is told of {subject}, {number}."),
        )
        async for response in stub.Ingest(iter([request])):
            assert response.HasField("ingested"), response
    callers = [asyncio.create_task(load.caller(call)) for call in load.calls]
    try:
        for done, replicas in enumerate(turns):
            names = " ".join(it.name for it in replicas)
            tell(done, f"{names} restarted, {tally.calls.total()} calls", len(turns))
            tally.statuses += await asyncio.gather(*(it.restart() for it in replicas))
            # Its callers find it, before the other one leaves.
            await asyncio.sleep(0.5)
        tell(len(turns), f"{tally.calls.total()} calls", len(turns))
    finally:
        for caller in callers:
            caller.cancel()
        ended = await asyncio.gather(*callers, return_exceptions=True)
    for it in ended:
        if not isinstance(it, asyncio.CancelledError):
            raise it if isinstance(it, BaseException) else AssertionError("a caller ended")
    ids = sorted(tally.acknowledged)
    for start in range(0, len(ids), 32):
        some = ids[start : start + 32]
        requests = [
            pb.GetDocumentRequest(collection=collection, id=it, include_content=True) for it in some
        ]
        reads = await asyncio.gather(*map(stub.GetDocument, requests), return_exceptions=True)
        for identifier, read in zip(some, reads, strict=True):
            if isinstance(read, BaseException) or _other(read, tally.acknowledged[identifier]):
                tally.lost.append(identifier)
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name=collection))


def _other(read: pb.GetDocumentResponse, content: str) -> bool:
    return bool(read.document.content != content)


def _run(options: Options, tell: Tell) -> Sequence[Check]:
    with own_stack() as stack:
        return asyncio.run(roll(stack, tell, options.amount)).checks()


SUITE = Suite("rolling", 2, "rounds", _run)
