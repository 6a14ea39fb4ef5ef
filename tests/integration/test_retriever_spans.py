"""Which database spans each call of the retriever yields, and what they tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.retriever import create, document, failure, packed, retriever_on, tables, upsert

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_servicekit import telemetry

if TYPE_CHECKING:
    from support.retriever import Stub


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    return spans


@pytest.fixture
async def stub(exporter: InMemorySpanExporter, database_url: str) -> AsyncIterator[Stub]:
    async with retriever_on(database_url) as it:
        yield it


def database_spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]


async def test_each_call_is_one_round_trip_with_one_span(
    stub: Stub, exporter: InMemorySpanExporter
) -> None:
    secret = "confidential"
    calls: list[tuple[Callable[[], Awaitable[object]], list[str]]] = [
        (lambda: create(stub, "c"), ["INSERT collection"]),
        (
            lambda: upsert(stub, "c", document("d1", [secret]), document("d2", [secret])),
            ["INSERT document", "INSERT document"],
        ),
        (lambda: stub.GetCollection(pb.GetCollectionRequest(name="c")), ["SELECT collection"]),
        (lambda: stub.ListCollections(pb.ListCollectionsRequest()), ["SELECT collection"]),
        (
            lambda: stub.GetDocument(pb.GetDocumentRequest(collection="c", id="d1")),
            ["SELECT document"],
        ),
        (lambda: stub.ListDocuments(pb.ListDocumentsRequest(collection="c")), ["SELECT document"]),
        (
            lambda: stub.Search(
                pb.SearchRequest(collection="c", text=secret, vector=packed([1, 0]))
            ),
            ["SELECT chunk"],
        ),
        (
            lambda: stub.DeleteDocument(pb.DeleteDocumentRequest(collection="c", id="d1")),
            ["DELETE document"],
        ),
        (
            lambda: stub.DeleteCollection(pb.DeleteCollectionRequest(name="c")),
            ["DELETE collection"],
        ),
    ]
    for call, names in calls:
        exporter.clear()
        await call()
        spans = database_spans(exporter)
        assert [" ".join(span.name.split()[:2]) for span in spans] == names
        ended = exporter.get_finished_spans()
        (server,) = (it for it in ended if it.kind is SpanKind.SERVER)
        retrieval = next((it for it in ended if it.name == "retrieval c"), None)
        retrieval = next((it for it in ended if it.name == "retrieval c"), None)
        for span in spans:
            above = retrieval or server
            assert span.parent is not None and span.parent.span_id == above.context.span_id
            attributes = dict(span.attributes or {})
            operation, table, *_ = span.name.split()
            assert attributes["db.system.name"] == "postgresql"
            assert attributes["db.operation.name"] == operation
            assert attributes["db.collection.name"] == table
            assert attributes["db.query.summary"] == span.name
            assert attributes["server.address"] and attributes["server.port"]
            assert attributes["db.namespace"]
            assert secret not in str(attributes) and not span.events


async def test_a_collection_that_the_process_does_not_know_yet_is_looked_up_once(
    stub: Stub, exporter: InMemorySpanExporter, database_url: str
) -> None:
    await create(stub, "c")
    async with retriever_on(database_url) as other:
        exporter.clear()
        for _ in range(2):
            await other.Search(pb.SearchRequest(collection="c", text="x"))
    names = [" ".join(it.name.split()[:2]) for it in database_spans(exporter)]
    assert names == ["SELECT collection", "SELECT chunk", "SELECT chunk"]


async def test_a_statement_that_fails_marks_its_span_without_the_drivers_words(
    database_url: str, exporter: InMemorySpanExporter
) -> None:
    async with retriever_on(database_url, statement_timeout_seconds=0.3) as stub:
        await create(stub, "c")
        with psycopg.connect(database_url) as connection:
            lock = "LOCK TABLE {document} IN ACCESS EXCLUSIVE MODE".format(**tables(database_url))
            connection.execute(lock.encode())
            exporter.clear()
            await failure(upsert(stub, "c", document("d")))
    (span,) = database_spans(exporter)
    assert span.status.status_code is StatusCode.ERROR
    attributes = dict(span.attributes or {})
    assert attributes["error.type"] == attributes["db.response.status_code"] == "57014"
    assert span.status.description is None and not span.events
