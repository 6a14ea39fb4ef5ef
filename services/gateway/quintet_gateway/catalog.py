"""What the gateway remembers of collections and models, so as not to ask each time.

Nothing stale can be served from it: the retriever checks the embedding revision
that every search and write names, and the generator the model. A mismatch, or a model
that the embedder does not have any more, makes the gateway forget and ask again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import AWAY
from quintet_gateway.generators import Generators, no_model
from quintet_servicekit.cache import Cache, CacheSettings, Codec
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.tenant_map import TenantMap

LIST_SECONDS = 5.0
"""How long the generator may take to list its models."""

LIST_PATIENCE = 0.25
"""How long a question waits for that list, in seconds, where an older one is at hand."""

_GENERATORS = "generators"

OUTDATED = frozenset({Reason.MODEL_MISMATCH, Reason.MODEL_NOT_FOUND})
"""Why a call fails whose collection was remembered with the embedding model of before."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """The model of a collection's vectors."""

    name: str
    revision: str


class Catalog:
    """Collections' embedding models and the generator's models."""

    def __init__(self, services: Services, *, max_collections: int, models_seconds: float) -> None:
        self._services = services
        self._collections: TenantMap[EmbeddingModel] = TenantMap(max_collections)
        self._last_listed: generator_pb.ListModelsResponse | None = None
        self._generators = Cache(
            "models",
            Codec(
                generator_pb.ListModelsResponse.SerializeToString,
                # Nobody changes it, so one object will do.
                lru_cache(maxsize=2)(generator_pb.ListModelsResponse.FromString),
            ),
            # Served for as long again while it is asked for anew, so that no question
            # waits for it, and who asks seldom is not told of models long gone.
            CacheSettings(ttl_seconds=models_seconds, ttl_jitter=0, stale_seconds=models_seconds),
        )

    async def embedding_model(self, chain: Chain, collection: str) -> EmbeddingModel:
        """Return the embedding model of a collection; what the chain costs is that
        collection's from then on.

        Raises `ServiceError` COLLECTION_NOT_FOUND.
        """
        known = self._collections.get(collection)
        if known is not None:
            chain.meter.collection = collection
            return known
        response = await chain.unary(
            self._services.peer("retriever"),
            "GetCollection",
            self._services.retriever.GetCollection,
            retriever_pb.GetCollectionRequest(name=collection),
        )
        chain.meter.collection = collection
        found = response.collection
        model = EmbeddingModel(found.embedding_model, found.embedding_revision)
        self._collections.put(collection, model)
        return model

    def forget(self, collection: str) -> None:
        """Drop what is remembered of a collection."""
        self._collections.forget(collection)

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
        raise no_model(name)

    def forget_generators(self) -> None:
        """Drop what is remembered of the generator's models."""
        self._generators.discard([_GENERATORS])

    async def generators(self) -> Generators:
        """Return the generator's models and templates; while it is away those that it had.

        Raises `ServiceError` as the generator does where it has told of none yet.
        """
        return Generators(await self._listed_generators())

    async def _listed_generators(self) -> generator_pb.ListModelsResponse:
        fresh = self._generators.peek(_GENERATORS)
        if fresh is not None:
            self._last_listed = fresh.value
            return fresh.value
        try:
            async with asyncio.timeout(None if self._last_listed is None else LIST_PATIENCE):
                found = await self._generators.get_or_load(_GENERATORS, self._list_generators)
        except (TimeoutError, ServiceError) as error:
            away = isinstance(error, TimeoutError) or error.reason in AWAY
            if self._last_listed is None or not away:
                raise
            # Remembered again, so that the next ones do not wait as long.
            self._generators.put(_GENERATORS, self._last_listed)
            return self._last_listed
        self._last_listed = found.value
        return found.value

    async def _list_generators(self) -> generator_pb.ListModelsResponse:
        # A chain of its own: who asks first may leave while others wait.
        return await Chain(Deadline.after(LIST_SECONDS)).unary(
            self._services.peer("generator"),
            "ListModels",
            self._services.generator.ListModels,
            generator_pb.ListModelsRequest(),
        )
