"""`kill -9` at any moment while documents come in: what was acknowledged is there, whole.

Writers bring in documents, and replace those that they know to be there, while one process
after the other is killed: services, Valkey, PostgreSQL's server or one of its backends, each
of which its supervisor starts again. The supervisor itself is killed in the integration tests
of the local stack: what it runs ends with it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from support.stack import TestStack

from chaos.inspection import inspect, orphans
from chaos.processes import family, is_backend, send
from chaos.report import Check
from chaos.shelf import Shelf, Shelved
from chaos.stack_access import dsn_of, stubs_of
from chaos.suite import Options, Suite, Tell, own_stack
from quintet.gateway.v1 import gateway_service_pb2 as pb

WRITERS = 4
PAUSE_SECONDS = 0.8
"""Longest time from an acknowledgement to the next kill: so many are killed while they write."""
PATIENCE_SECONDS = 3.0
"""Longest wait for that acknowledgement: so many are killed while others are still away."""
WRITE_SECONDS = 6.0
"""Deadline of a stream of documents."""
BACKEND = "a backend of postgres"
VICTIMS = (
    "tokenizer",
    "embedder",
    "retriever",
    "generator",
    "gateway",
    "postgres",
    BACKEND,
    "valkey",
)
WRITER_PAUSE_SECONDS = 0.5
"""Mean time between two streams of a writer: embedding is not to be all that happens."""
_SHOWN = 20
"""Most faults that are told one by one."""
_REPLACED = 0.15
"""Part of the documents that replace one."""
_COLLECTIONS = 3
_CALM_SECONDS = 60.0
"""Within which all is well again after the last kill, on a machine that is busy with tests."""


@dataclass
class Durability:
    """What a run did and found."""

    shelf: Shelf
    kills: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Streams that did not end well, by reason or code."""
    wrong: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


async def run(
    stack: TestStack, kills: int, seed: int, watch: Callable[[Durability], None] = lambda _: None
) -> Durability:
    """Kill so many processes of a stack while documents come in, and look at all of them."""
    rng = random.Random(f"{seed} durability")
    collections = [f"durable-{number}-{secrets.token_hex(4)}" for number in range(_COLLECTIONS)]
    it = Durability(Shelf(collections, rng))
    async with stubs_of(stack) as stubs:
        gateway = stubs.gateway
        for name in collections:
            await gateway.CreateCollection(pb.CreateCollectionRequest(name=name), timeout=30)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                its = random.Random(f"{seed} writer {number}")
                group.create_task(_write(it, gateway, its, over))
            await _kill(it, stack, kills, rng, watch)
            over.set()
        await _calm(gateway, collections[0])
        it.wrong = await inspect(it.shelf, stubs, dsn_of(stack))
        it.orphans = orphans(stack)
        for name in collections:
            await gateway.DeleteCollection(pb.DeleteCollectionRequest(name=name), timeout=30)
    return it


async def _write(it: Durability, gateway: Any, rng: random.Random, over: asyncio.Event) -> None:
    """Bring in documents, one to four a stream, until it is over."""
    while not over.is_set():
        sent: dict[str, Shelved] = {}
        for _ in range(rng.randint(1, 4)):
            replaced = it.shelf.known() if rng.random() < _REPLACED else None
            document = replaced or it.shelf.new()
            sent[document.id] = document
        requests = [document.send(it.shelf.text()) for document in sent.values()]
        try:
            async for response in gateway.Ingest(iter(requests), timeout=WRITE_SECONDS):
                if response.HasField("ingested"):
                    it.shelf.acknowledge(sent[response.document_id])
        except grpc.aio.AioRpcError as error:
            it.failures[error.code().name] += 1
        await asyncio.sleep(rng.expovariate(1 / WRITER_PAUSE_SECONDS))


async def _kill(
    it: Durability,
    stack: TestStack,
    kills: int,
    rng: random.Random,
    watch: Callable[[Durability], None],
) -> None:
    killed: dict[str, int] = {}
    for victim in _victims(kills, rng):
        await it.shelf.acknowledged(PATIENCE_SECONDS)
        await asyncio.sleep(rng.uniform(0, PAUSE_SECONDS))
        name = "postgres" if victim == BACKEND else victim
        # Its watcher runs on another thread, and tells of no event.
        while stack.pid(name) == killed.get(name):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        pid = stack.pid(name)
        if victim == BACKEND:
            backends = [each for each in family(pid)[1:] if is_backend(each)]
            pid = rng.choice(backends or [pid])
        if pid == stack.pid(name):
            killed[name] = pid
        send(pid, signal.SIGKILL)
        it.kills[victim] += 1
        watch(it)


def _victims(kills: int, rng: random.Random) -> Iterator[str]:
    """Yield whom to kill: all as often, in random order."""
    while kills > 0:
        some = rng.sample(VICTIMS, min(kills, len(VICTIMS)))
        kills -= len(some)
        yield from some


async def _calm(gateway: Any, collection: str) -> None:
    """Wait until documents are taken again."""
    document = pb.Document(id="calm", content="All is calm.")
    async with asyncio.timeout(_CALM_SECONDS):
        while True:
            request = pb.IngestRequest(collection=collection, document=document)
            try:
                async for response in gateway.Ingest(iter([request]), timeout=WRITE_SECONDS):
                    if response.HasField("ingested"):
                        await gateway.DeleteDocument(
                            pb.DeleteDocumentRequest(collection=collection, id="calm"), timeout=10
                        )
                        return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.2)


def checks(it: Durability) -> list[Check]:
    """Return what is required of a run, and what was found."""
    documents = it.shelf.documents
    found = [
        Check("kills", it.kills.total()),
        *(Check(f"kills: {victim}", it.kills[victim]) for victim in sorted(it.kills)),
        Check("documents sent", len(documents)),
        Check("acknowledgements", it.shelf.acknowledgements, "some", it.shelf.acknowledgements > 0),
        Check("documents found afterwards", sum(each.is_known for each in documents)),
        Check("streams that kills broke", it.failures.total()),
        Check(
            "documents and tables that are not as they must be", len(it.wrong), "none", not it.wrong
        ),
        Check("processes without a supervisor", len(it.orphans), "none", not it.orphans),
    ]
    return found + [Check(each, 1, "none", False) for each in [*it.wrong, *it.orphans][:_SHOWN]]


def _run_alone(options: Options, tell: Tell) -> list[Check]:
    def watch(it: Durability) -> None:
        said = f"{it.shelf.acknowledgements} documents acknowledged"
        tell(it.kills.total(), said)

    with own_stack() as stack:
        return checks(asyncio.run(run(stack, options.amount, options.seed, watch)))


SUITE = Suite("durability", 200, "kills", _run_alone)
