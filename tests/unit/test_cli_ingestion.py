from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_cli import ingestion
from quintet_cli.connection import Gateway
from quintet_cli.files import Document, Rejected
from quintet_cli.ingestion import Ingestion, Item, Result
from quintet_servicekit.errors import Reason, ServiceError


class GreedyGateway:
    """Takes all that it is given before it acknowledges anything, newest first."""

    stub = SimpleNamespace(Ingest=None)

    def __init__(self, *, acknowledged: int | None = None) -> None:
        self.most_documents = 0
        self.most_bytes = 0
        self._left = acknowledged

    async def exchange(
        self, method: str, call: Any, requests: AsyncIterator[pb.IngestRequest]
    ) -> AsyncIterator[pb.IngestResponse]:
        pending: list[tuple[int, pb.IngestRequest]] = []
        index, following = 0, asyncio.ensure_future(anext(requests, None))
        while True:
            done, _ = await asyncio.wait({following}, timeout=0.02)
            if done and (request := following.result()) is not None:
                pending.append((index, request))
                index += 1
                self.most_documents = max(self.most_documents, len(pending))
                size = sum(request.ByteSize() for _, request in pending)
                self.most_bytes = max(self.most_bytes, size)
                following = asyncio.ensure_future(anext(requests, None))
            elif pending and self._left != 0:
                self._left = self._left and self._left - 1
                number, request = pending.pop()
                yield pb.IngestResponse(
                    index=number,
                    document_id=request.document.id,
                    ingested=pb.Ingested(outcome=pb.INGEST_OUTCOME_CREATED, chunks=2, tokens=5),
                )
            else:
                return


def _documents(count: int, content: str = "text") -> Iterator[Document]:
    return (Document(f"{number:03}", "", content) for number in range(count))


async def _ingested(
    gateway: GreedyGateway, items: Iterator[Item]
) -> tuple[Ingestion, list[Result]]:
    results: list[Result] = []
    run = Ingestion(cast(Gateway, gateway), "c", results.append)
    await run.run(items)
    return run, results


async def test_few_documents_are_under_way_at_once() -> None:
    gateway = GreedyGateway()
    run, results = await _ingested(gateway, _documents(50))
    assert gateway.most_documents == ingestion.WINDOW_DOCUMENTS
    assert sorted(result.id for result in results) == [f"{n:03}" for n in range(50)]
    assert (run.summary.created, run.summary.chunks, run.summary.tokens) == (50, 100, 250)


async def test_few_bytes_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "WINDOW_BYTES", 1000)
    gateway = GreedyGateway()
    run, _ = await _ingested(gateway, _documents(20, "x" * 300))
    assert 600 < gateway.most_bytes <= 1000
    assert run.summary.created == 20


async def test_a_document_larger_than_the_window_still_goes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingestion, "WINDOW_BYTES", 100)
    gateway = GreedyGateway()
    run, _ = await _ingested(gateway, _documents(3, "x" * 300))
    assert gateway.most_documents == 1
    assert run.summary.created == 3


async def test_a_document_that_is_never_acknowledged_has_failed() -> None:
    run, results = await _ingested(GreedyGateway(acknowledged=2), _documents(3))
    assert (run.summary.created, run.summary.failed) == (2, 1)
    assert results[-1].message == "it was never acknowledged"


async def test_what_was_rejected_before_is_told_and_not_sent() -> None:
    gateway = GreedyGateway()
    items: list[Item] = [Rejected(Path("a/b.md"), "b.md", "empty"), *_documents(1)]
    run, results = await _ingested(gateway, iter(items))
    assert gateway.most_documents == 1
    assert results[0] == Result("a/b.md", "b.md", "failed", reason="UNREADABLE", message="empty")
    assert (run.summary.created, run.summary.failed) == (1, 1)


class FlakyGateway:
    """Does with each stream what a test says: a list of the documents that it acknowledges,
    refuses because of a service that is away, or breaks at."""

    stub = SimpleNamespace(Ingest=None)

    def __init__(self, *streams: dict[str, str]) -> None:
        self._streams = list(streams)
        self.sent: list[list[tuple[str, str]]] = []

    async def exchange(
        self, method: str, call: Any, requests: AsyncIterator[pb.IngestRequest]
    ) -> AsyncIterator[pb.IngestResponse]:
        plan = self._streams.pop(0) if self._streams else {}
        self.sent.append([])
        index = 0
        async for request in requests:
            name = request.document.id
            self.sent[-1].append((name, request.request_id))
            response = pb.IngestResponse(index=index, document_id=name)
            if plan.get(name) == "break":
                raise ServiceError(Reason.NOT_READY, "the service is stopping")
            if plan.get(name) == "refuse" or plan.get("*") == "refuse":
                response.refused.code = grpc.StatusCode.UNAVAILABLE.value[0]
                response.refused.reason = ErrorReason.ERROR_REASON_DEPENDENCY_UNAVAILABLE
            elif plan.get(name) != "forget":
                response.ingested.outcome = pb.INGEST_OUTCOME_CREATED
            if response.WhichOneof("result"):
                yield response
            index += 1


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "FIRST_PAUSE", 0.0)


async def test_what_a_broken_stream_left_is_sent_again_with_the_same_ids(no_pauses: None) -> None:
    gateway = FlakyGateway({"001": "forget", "002": "break"})
    run, results = await _ingested(cast(Any, gateway), _documents(5))
    assert (run.summary.created, run.summary.failed) == (5, 0)
    first, second = (dict(stream) for stream in gateway.sent)
    assert list(second) == ["001", "002", "003", "004"]
    assert (second["001"], second["002"]) == (first["001"], first["002"])
    assert sorted(result.id for result in results) == [f"{n:03}" for n in range(5)]


async def test_a_document_refused_for_a_service_that_is_away_is_sent_again(
    no_pauses: None,
) -> None:
    gateway = FlakyGateway({"000": "refuse"}, {"000": "refuse"})
    run, _ = await _ingested(cast(Any, gateway), _documents(2))
    assert (run.summary.created, run.summary.failed) == (2, 0)
    assert len({identifier for stream in gateway.sent for _, identifier in stream}) == 2


async def test_a_service_that_stays_away_is_given_up_and_few_documents_wait_for_it(
    no_pauses: None,
) -> None:
    gateway = FlakyGateway(*[{"*": "refuse"}] * (ingestion.RETRIES + 1))
    run, _ = await _ingested(cast(Any, gateway), _documents(100))
    assert (run.summary.created, run.summary.failed) == (0, 100)
    assert all(len(s) <= 2 * ingestion.WINDOW_DOCUMENTS for s in gateway.sent[:-1])


async def test_a_stream_that_always_breaks_fails(no_pauses: None) -> None:
    gateway = FlakyGateway(*[{"000": "break"}] * (ingestion.RETRIES + 1))
    with pytest.raises(ServiceError) as caught:
        await _ingested(cast(Any, gateway), _documents(3))
    assert caught.value.reason is Reason.NOT_READY
    assert len(gateway.sent) == ingestion.RETRIES + 1
