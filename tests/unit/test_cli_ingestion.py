from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_cli import ingestion
from quintet_cli.connection import Gateway
from quintet_cli.files import Document, Rejected
from quintet_cli.ingestion import Ingestion, Item, Result


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
