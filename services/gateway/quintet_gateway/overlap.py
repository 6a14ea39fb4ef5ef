"""How much two collections of the same documents agree on what is near to what."""

from __future__ import annotations

from collections.abc import Callable

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.searching import Query, Searcher
from quintet_servicekit.errors import Reason, ServiceError

SAMPLE = 100
"""Documents by whose beginnings the two are compared."""
BEGINNING = 200
"""Characters of such a beginning: some two sentences."""
DEPTH = 10
"""Documents that are compared of each search."""
_CHUNKS = 50
"""Chunks that are found for that: a document may have several among them."""


class Overlap:
    """Searches both collections for the beginnings of the first documents."""

    def __init__(self, services: Services, searcher: Searcher) -> None:
        self._services = services
        self._searcher = searcher

    async def between(self, one: str, other: str, new_chain: Callable[[], Chain]) -> pb.Compared:
        """Return the mean share of the `DEPTH` documents nearest to a beginning, by the
        vectors of `one`, that are so by those of `other`; 1 where there is nothing to
        compare."""
        shares = []
        for text in await self._beginnings(one, new_chain):
            expected, found = [
                await self._nearest(new_chain(), name, text) for name in (one, other)
            ]
            shares.append(len(expected & found) / max(1, len(expected)))
        mean = sum(shares) / len(shares) if shares else 1.0
        return pb.Compared(overlap=mean, searches=len(shares))

    async def _beginnings(self, name: str, new_chain: Callable[[], Chain]) -> list[str]:
        page = await new_chain().unary(
            self._services.peer("retriever"),
            "ListDocuments",
            self._services.retriever.ListDocuments,
            retriever_pb.ListDocumentsRequest(collection=name, page_size=SAMPLE),
        )
        texts = []
        for document in page.documents:
            try:
                found = await new_chain().unary(
                    self._services.peer("retriever"),
                    "GetDocument",
                    self._services.retriever.GetDocument,
                    retriever_pb.GetDocumentRequest(
                        collection=name, id=document.id, include_content=True
                    ),
                    expected=Reason.DOCUMENT_NOT_FOUND,
                )
            except ServiceError as error:
                # Deleted since it was listed.
                if error.reason is Reason.DOCUMENT_NOT_FOUND:
                    continue
                raise
            texts.append(found.document.content.strip()[:BEGINNING])
        return [text for text in texts if text]

    async def _nearest(self, chain: Chain, name: str, text: str) -> set[str]:
        query = Query(
            collection=name,
            text=text,
            k=_CHUNKS,
            mode=retriever_pb.SEARCH_MODE_DENSE,
            filter=None,
            consistency=retriever_pb.Consistency(fully_consistent=True),
        )
        found = await self._searcher.find(chain, query)
        return set(list(dict.fromkeys(hit.document_id for hit in found.hits))[:DEPTH])
