"""Finds passages: the question's vector, then the retriever's hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.catalog import OUTDATED, Catalog, EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.freshness import Freshness
from quintet_servicekit.errors import ServiceError

_FROM_A_CACHE = (
    cache_pb.CACHE_OUTCOME_HIT,
    cache_pb.CACHE_OUTCOME_SHARED,
    cache_pb.CACHE_OUTCOME_STALE,
)
"""Outcomes of which the database may not have been read since the call began."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, and how fresh the hits must be."""

    collection: str
    text: str
    k: int
    mode: retriever_pb.SearchMode.ValueType
    filter: retriever_pb.Filter | None
    consistency: retriever_pb.Consistency


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A question's vector, packed, the revision that made it and the tokens it took."""

    packed: bytes
    revision: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; `vector` is None for lexical search. See SearchResponse for
    the others."""

    hits: Sequence[retriever_pb.Hit]
    mode: retriever_pb.SearchMode.ValueType
    vector: QueryVector | None
    state: bytes
    unchanged: bool
    invalidated: bool
    token: str
    exhausted: bool
    compared_all: bool


class Searcher:
    """Embeds questions and searches collections."""

    def __init__(self, services: Services, catalog: Catalog, freshness: Freshness) -> None:
        self._services = services
        self._catalog = catalog
        self._freshness = freshness

    async def find(self, chain: Chain, query: Query) -> Found:
        """Return the hits of a query, best first.

        Raises `ServiceError` as the embedder and the retriever do.
        """
        try:
            return await self.search(chain, query, await self.vector(chain, query))
        except ServiceError as error:
            if error.reason not in OUTDATED:
                raise
        # The collection was made anew since we last looked.
        self._catalog.forget(query.collection)
        return await self.search(chain, query, await self.vector(chain, query))

    async def vector(self, chain: Chain, query: Query) -> QueryVector | None:
        """Return the query's vector; None where its mode needs none, and where the
        embedder is away, for a search by words alone."""
        if query.mode == retriever_pb.SEARCH_MODE_LEXICAL:
            return None
        model: EmbeddingModel = await self._catalog.embedding_model(chain, query.collection)
        try:
            embedded = await chain.unary(
                self._services.peer("embedder"),
                "Embed",
                self._services.embedder.Embed,
                embedder_pb.EmbedRequest(
                    model=model.name,
                    texts=[query.text],
                    input_type=embedder_pb.INPUT_TYPE_QUERY,
                    # All of a long question's words are searched for; its vector is made
                    # of as many as the model reads.
                    truncation=embedder_pb.TRUNCATION_END,
                ),
                replaceable=True,
            )
        except ServiceError as error:
            chain.degradations.pass_over(
                "embedder",
                error,
                pb.SUBSTITUTE_LEXICAL_SEARCH,
                "passages were found by their words, not by what they mean",
            )
            return None
        # The revision that made this vector, not the remembered one: the embedder may
        # have been given another model since.
        first = embedded.embeddings[0]
        return QueryVector(first.vector, embedded.revision, first.tokens)

    async def search(
        self,
        chain: Chain,
        query: Query,
        vector: QueryVector | None,
        known_state: bytes = b"",
        *,
        replaceable: bool = False,
    ) -> Found:
        """Return the hits of a query whose vector is known, or that they are unchanged
        since `known_state`; without a vector those of a search by words alone.
        `replaceable` is as in `Chain.unary`.

        Raises `ServiceError` MODEL_MISMATCH when the collection has another embedding
        model, and as the retriever does.
        """
        mark = self._freshness.mark()
        found = await chain.unary(
            self._services.peer("retriever"),
            "Search",
            self._services.retriever.Search,
            retriever_pb.SearchRequest(
                collection=query.collection,
                text=query.text,
                vector=vector.packed if vector else b"",
                embedding_revision=vector.revision if vector else "",
                mode=query.mode if vector else retriever_pb.SEARCH_MODE_LEXICAL,
                k=query.k,
                filter=query.filter,
                consistency=query.consistency,
                known_state=known_state,
            ),
            replaceable=replaceable,
        )
        chain.meter.collection = query.collection
        if found.cache.outcome not in _FROM_A_CACHE:
            self._freshness.note(query.collection, found.consistency_token, mark)
        return Found(
            hits=found.hits,
            mode=found.mode,
            vector=vector,
            state=found.state,
            unchanged=found.unchanged,
            invalidated=found.invalidated,
            token=found.consistency_token,
            exhausted=found.exhausted,
            compared_all=found.compared_all,
        )


def by_words_alone(
    chain: Chain, request: pb.SearchRequest, refused: ServiceError
) -> pb.SearchRequest:
    """Return a search that embeds and reranks nothing. Raises what `refused` the one that
    is asked for where it wants no other."""
    cheap = pb.SearchRequest()
    cheap.CopyFrom(request)
    if request.mode != retriever_pb.SEARCH_MODE_LEXICAL:
        chain.degradations.pass_over(
            "budget",
            refused,
            pb.SUBSTITUTE_LEXICAL_SEARCH,
            "the budget is spent: passages were found by their words, not by what they mean",
        )
        cheap.mode = retriever_pb.SEARCH_MODE_LEXICAL
    if request.refinement.rerank:
        chain.degradations.pass_over(
            "budget",
            refused,
            pb.SUBSTITUTE_STEP_SKIPPED,
            "the budget is spent: passages stand in the order in which they were found",
        )
        cheap.refinement.rerank = False
    return cheap
