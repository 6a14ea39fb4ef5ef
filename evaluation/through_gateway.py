"""Brings a collection in and searches it, through the gateway's public API."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from evaluation.scoring import Run
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

MODES = {
    "lexical": retriever_pb.SEARCH_MODE_LEXICAL,
    "dense": retriever_pb.SEARCH_MODE_DENSE,
    "hybrid": retriever_pb.SEARCH_MODE_HYBRID,
}
DEPTH = 100
"""Documents that are ranked a query: as many as recall@100 looks at."""
_AT_ONCE = 4
"""Searches under way at once."""


def ingested(stub: Any, documents: Mapping[str, str]) -> AbstractAsyncContextManager[str]:
    """Yield the name of a new collection that holds the documents, each in one piece;
    it is deleted after. Raises RuntimeError when one is refused."""
    return collection_of(
        stub, (pb.Document(id=id_, content=text, whole=True) for id_, text in documents.items())
    )


@asynccontextmanager
async def collection_of(stub: Any, documents: Iterable[pb.Document]) -> AsyncIterator[str]:
    """Yield the name of a new collection that holds the documents; it is deleted after.
    Raises RuntimeError when one is refused."""
    name = f"evaluation-{secrets.token_hex(6)}"
    await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
    try:
        requests = (pb.IngestRequest(collection=name, document=it) for it in documents)
        async for response in stub.Ingest(requests):
            if response.HasField("refused"):
                raise RuntimeError(f"{response.document_id}: {response.refused.message}")
        yield name
    finally:
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))


async def run_of(stub: Any, collection: str, queries: Mapping[str, str], mode: str) -> Run:
    """Return what a mode finds for the queries. A degraded search is an error."""
    waiting = iter(queries.items())
    run: dict[str, dict[str, float]] = {}

    async def searcher() -> None:
        for query, text in waiting:
            response = await stub.Search(
                pb.SearchRequest(
                    collection=collection,
                    query=text,
                    k=DEPTH,
                    mode=MODES[mode],
                    fail_if_degraded=True,
                )
            )
            # By rank: pytrec_eval would order equal scores by the documents' ids.
            run[query] = {
                hit.document_id: float(DEPTH - rank) for rank, hit in enumerate(response.hits)
            }

    await asyncio.gather(*(searcher() for _ in range(_AT_ONCE)))
    return run
