"""What the gateway remembers of collections and models, so as not to ask each time.

Nothing stale can be served from it: the retriever checks the embedding revision
that every search and write names, and the generator the model. A mismatch makes
the gateway forget and ask again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import AWAY
from quintet_servicekit.cache import Cache, CacheSettings, Codec
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.tenant_map import TenantMap

LIST_SECONDS = 5.0
"""How long the generator may take to list its models."""

LIST_PATIENCE = 0.25
"""How long a question waits for that list, in seconds, where an older one is at hand."""

_GENERATORS = "generators"
EXTRACTIVE = "extractive"
"""The generator's name of the backend that composes answers of the passages' sentences."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """The model of a collection's vectors."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt template, and the revision of it alone."""

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
                generator_pb.ListModelsResponse.FromString,
            ),
            # Served for as long again while it is asked for anew, so that no question
            # waits for it, and who asks seldom is not told of models long gone.
            CacheSettings(ttl_seconds=models_seconds, ttl_jitter=0, stale_seconds=models_seconds),
        )

    async def embedding_model(self, chain: Chain, collection: str) -> EmbeddingModel:
        """Return the embedding model of a collection.

        Raises `ServiceError` COLLECTION_NOT_FOUND.
        """
        known = self._collections.get(collection)
        if known is not None:
            return known
        response = await chain.unary(
            self._services.peer("retriever"),
            "GetCollection",
            self._services.retriever.GetCollection,
            retriever_pb.GetCollectionRequest(name=collection),
        )
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
        raise _no_model(name)

    async def generators(self, name: str) -> list[generator_pb.Model]:
        """Return the generator's model of that name, or its default for an empty one, and
        then its others by preference, of which the extractive one comes last.

        Raises `ServiceError` MODEL_NOT_FOUND.
        """
        models = (await self._listed_generators()).models
        for wanted in models:
            if wanted.name == name or (not name and wanted.is_default):
                others = [model for model in models if model.name != wanted.name]
                return [wanted, *sorted(others, key=is_extractive)]
        raise _no_model(name)

    async def template(self, name: str, model: generator_pb.Model) -> Template:
        """Return the generator's template of that name; `model` is one of its models.

        Raises `ServiceError` TEMPLATE_NOT_FOUND.
        """
        templates = (await self._listed_generators()).templates
        if not templates:
            # A release of before there were revisions of each.
            return Template(name, model.prompt_revision)
        for it in templates:
            if it.name == name:
                return Template(name, it.revision)
        raise ServiceError(
            Reason.TEMPLATE_NOT_FOUND,
            f"there is no template {name[:200]!r}",
            metadata={"template": name[:200], "known": ",".join(it.name for it in templates)},
        )

    def forget_generators(self) -> None:
        """Drop what is remembered of the generator's models."""
        self._generators.discard([_GENERATORS])

    async def _listed_generators(self) -> generator_pb.ListModelsResponse:
        """Return the generator's models; while it is away those that it had."""
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


def is_extractive(model: generator_pb.Model) -> bool:
    """Whether a model's answers are sentences of the passages."""
    return model.backend == EXTRACTIVE


def _no_model(name: str) -> ServiceError:
    return ServiceError(
        Reason.MODEL_NOT_FOUND, "no service has that model", metadata={"model": name[:200]}
    )
