"""Searches of collections whose embedding model is not the one that is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.billing.meter import Meter
from quintet_gateway.catalog import Catalog
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import Degradations
from quintet_gateway.freshness import Freshness
from quintet_gateway.searching import Query, Searcher
from quintet_servicekit.errors import Reason, ServiceError


class Switched:
    """A chain to a retriever whose collection was given the model "new" by another gateway,
    and to an embedder that has the models `served`."""

    def __init__(self, served: set[str]) -> None:
        self.degradations = Degradations(forbidden=True)
        self.meter = Meter()
        self.model = "old"
        self.served = served

    async def unary(self, peer: Any, method: str, call: Any, request: Any, **_: Any) -> Any:
        if method == "GetCollection":
            collection = retriever_pb.Collection(
                embedding_model=self.model, embedding_revision=f"r-{self.model}"
            )
            return retriever_pb.GetCollectionResponse(collection=collection)
        if method == "Embed":
            if request.model not in self.served:
                raise ServiceError(Reason.MODEL_NOT_FOUND, "no model has that name")
            return embedder_pb.EmbedResponse(
                revision=f"r-{request.model}", embeddings=[embedder_pb.Embedding(vector=b"v")]
            )
        if request.embedding_revision != f"r-{self.model}":
            raise ServiceError(Reason.MODEL_MISMATCH, "another model")
        return retriever_pb.SearchResponse(hits=[retriever_pb.Hit(document_id="d")])


@pytest.mark.parametrize("served", [{"new"}, {"old", "new"}])
async def test_a_gateway_that_remembers_the_model_of_before_finds_the_new_one(
    served: set[str],
) -> None:
    services = cast(
        Services,
        SimpleNamespace(
            peer=lambda name: None,
            retriever=SimpleNamespace(GetCollection=None, Search=None),
            embedder=SimpleNamespace(Embed=None),
        ),
    )
    freshness = SimpleNamespace(mark=lambda: None, note=lambda *_: None)
    catalog = Catalog(services, max_collections=5, models_seconds=1)
    searcher = Searcher(services, catalog, cast(Freshness, freshness))
    switched = Switched(served)
    chain = cast(Chain, switched)
    query = Query(
        collection="notes",
        text="bees",
        k=1,
        mode=retriever_pb.SEARCH_MODE_HYBRID,
        filter=None,
        consistency=retriever_pb.Consistency(),
    )
    assert (await catalog.embedding_model(chain, "notes")).name == "old"
    switched.model = "new"
    found = await searcher.find(chain, query)
    assert [hit.document_id for hit in found.hits] == ["d"]
    switched.served = set()
    with pytest.raises(ServiceError) as nowhere:
        await searcher.find(chain, query)
    assert nowhere.value.reason is Reason.MODEL_NOT_FOUND
