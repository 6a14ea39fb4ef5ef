"""The span of a search, by OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span

from quintet_retriever.models import SearchRequest, SearchResult
from quintet_servicekit import telemetry
from quintet_servicekit.spans import working


class Observation:
    """Takes what one search found."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def found(self, result: SearchResult) -> None:
        """Note the hits, where spans may hold them."""
        if telemetry.traces_content():
            hits = [{"id": it.document_id, "score": it.score} for it in result.hits]
            self._span.set_attribute("gen_ai.retrieval.documents", json.dumps(hits))


@contextmanager
def retrieval(collection: str, request: SearchRequest) -> Iterator[Observation]:
    """Yield what observes a search in the collection of that name."""
    with working(
        f"retrieval {collection}",
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.provider.name": "quintet",
            "gen_ai.data_source.id": collection,
            "gen_ai.request.top_k": request.k,
        },
    ) as span:
        if telemetry.traces_content():
            span.set_attribute("gen_ai.retrieval.query.text", request.text)
        yield Observation(span)
