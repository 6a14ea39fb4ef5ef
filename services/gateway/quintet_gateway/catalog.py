"""What the gateway remembers of collections and models, so as not to ask each time.

Nothing stale can be served from it: the retriever checks the embedding revision
that every search and write names, and the generator the model. A mismatch makes
the gateway forget and ask again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_servicekit.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """The model of a collection's vectors."""

    name: str
    revision: str


class Catalog:
    """Collections' embedding models and the generator's models."""

    def __init__(self, services: Services, *, max_collections: int, models_seconds: float) -> None:
        self._services = services
        self._collections: OrderedDict[str, EmbeddingModel] = OrderedDict()
        self._max_collections = max_collections
        self._models_seconds = models_seconds
        self._generators: Sequence[generator_pb.Model] = ()
        self._generators_until = 0.0

    async def embedding_model(self, chain: Chain, collection: str) -> EmbeddingModel:
        """Return the embedding model of a collection.

        Raises `ServiceError` COLLECTION_NOT_FOUND.
        """
        if collection in self._collections:
            self._collections.move_to_end(collection)
            return self._collections[collection]
        response = await chain.unary(
            self._services.peer("retriever"),
            "GetCollection",
            self._services.retriever.GetCollection,
            retriever_pb.GetCollectionRequest(name=collection),
        )
        found = response.collection
        model = EmbeddingModel(found.embedding_model, found.embedding_revision)
        self._collections[collection] = model
        if len(self._collections) > self._max_collections:
            self._collections.popitem(last=False)
        return model

    def forget(self, collection: str) -> None:
        """Drop what is remembered of a collection."""
        self._collections.pop(collection, None)

    async def embedder(self, chain: Chain, name: str) -> embedder_pb.Model:
        """Return the embedder's model of that name, or its default for an empty one.

        Raises `ServiceError` MODEL_NOT_FOUND.
        """
        response = await chain.unary(
            self._services.peer("embedder"),
            "ListModels",
            self._services.embedder.ListModels,
            embedder_pb.ListModelsRequest(),
        )
        for model in response.models:
            if model.name == name or (not name and model.is_default):
                return model
        raise _no_model(name)

    async def generator(self, chain: Chain, name: str) -> generator_pb.Model:
        """Return the generator's model of that name, or its default for an empty one.

        Raises `ServiceError` MODEL_NOT_FOUND.
        """
        found = _pick(self._generators, name)
        if found is None or time.monotonic() > self._generators_until:
            response = await chain.unary(
                self._services.peer("generator"),
                "ListModels",
                self._services.generator.ListModels,
                generator_pb.ListModelsRequest(),
            )
            self._generators = response.models
            self._generators_until = time.monotonic() + self._models_seconds
            found = _pick(self._generators, name)
        if found is None:
            raise _no_model(name)
        return found


def _pick(models: Sequence[generator_pb.Model], name: str) -> generator_pb.Model | None:
    for model in models:
        if model.name == name or (not name and model.is_default):
            return model
    return None


def _no_model(name: str) -> ServiceError:
    return ServiceError(
        Reason.MODEL_NOT_FOUND, "no service has that model", metadata={"model": name[:200]}
    )
