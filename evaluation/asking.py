"""Asks questions in several ways through the gateway's public API, and keeps the answers,
so that what takes long can be done in parts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bench.run import NO_CACHES
from evaluation.answers import CALLS, SECONDS, lines
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import OPEN, running_stack

Corpora = Mapping[str, Sequence[pb.Document]]
"""Documents by the name of their collection."""


@dataclass(frozen=True)
class Way:
    """What a request has besides its question, and the settings of the stack it is put to."""

    name: str
    request: pb.AskRequest = field(default_factory=pb.AskRequest)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question of a set, asked of a collection. What is right is said by `references`, or
    by the `place` that the answer has to cite: characters `start` to `end` of a document.
    Neither: the documents don't say."""

    of: str
    collection: str
    id: str
    text: str
    references: tuple[str, ...] = ()
    place: tuple[str, int, int] | None = None

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.collection} {self.id}"


@dataclass(frozen=True)
class Answer:
    """What was answered in one way; `cited` are documents, first characters and ends."""

    way: str
    question: str
    text: str
    abstained: bool
    cited: Sequence[Sequence[Any]]


Wanted = Sequence[tuple[Way, Question]]


async def answers(
    wanted: Wanted, corpora: Corpora, kept: Path, until: float, folder: Path
) -> list[Answer]:
    """Return the answers that `kept` holds, and those to all else that is wanted, which are
    added to it. No question is put after `until` of the monotonic clock. `folder` is
    for the state of stacks, one for each environment."""
    done = list(_read(kept))
    known = {(it.way, it.question) for it in done}
    missing = [(way, it) for way, it in wanted if (way.name, it.key) not in known]
    parts: dict[tuple[tuple[str, str], ...], list[tuple[Way, Question]]] = {}
    for way, it in missing:
        parts.setdefault(tuple(way.environment.items()), []).append((way, it))
    for number, part in enumerate(parts.values()):
        if time.monotonic() < until:
            done += await _of_a_stack(part, corpora, kept, until, folder / str(number))
    return done


async def _of_a_stack(
    wanted: Wanted, corpora: Corpora, kept: Path, until: float, folder: Path
) -> list[Answer]:
    environment = NO_CACHES | OPEN | dict(wanted[0][0].environment)
    async with (
        running_stack(folder, environment=environment) as stack,
        grpc.aio.insecure_channel(stack.gateway) as channel,
    ):
        return await asked(GatewayServiceStub(channel), wanted, corpora, kept, until)


async def asked(
    stub: Any, wanted: Wanted, corpora: Corpora, kept: Path, until: float
) -> list[Answer]:
    """Bring in the collections that are asked, and return the answers, which are added to
    `kept` one by one. No question is put after `until`."""
    waiting, done = iter(wanted), []
    for name in {it.collection: None for _, it in wanted}:
        await _ingest(stub, name, corpora[name])

    async def asker() -> None:
        for way, question in waiting:
            if time.monotonic() > until:
                return
            answer = await _ask(stub, way, question)
            done.append(answer)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer)) + "\n")

    await asyncio.gather(*(asker() for _ in range(CALLS)))
    return done


async def _ingest(stub: Any, name: str, documents: Iterable[pb.Document]) -> None:
    await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
    requests = (pb.IngestRequest(collection=name, document=it) for it in documents)
    async for response in stub.Ingest(requests):
        if response.HasField("refused"):
            raise RuntimeError(f"{response.document_id}: {response.refused.message}")


async def _ask(stub: Any, way: Way, question: Question) -> Answer:
    request = pb.AskRequest(
        collection=question.collection,
        question=question.text,
        cache=pb.CACHE_POLICY_NONE,
        fail_if_degraded=True,
    )
    request.MergeFrom(way.request)
    response = await stub.Ask(request, timeout=SECONDS)
    cited = [(it.document_id, it.document_start, it.document_end) for it in response.citations]
    return Answer(way.name, question.key, response.answer, response.abstention.abstained, cited)


def _read(kept: Path) -> Iterator[Answer]:
    if kept.exists():
        yield from (Answer(**it) for it in lines(kept))
