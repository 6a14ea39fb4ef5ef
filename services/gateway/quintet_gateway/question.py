"""A question with all that decides its answer, and the key of that answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

from opentelemetry import trace

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.billing.bounds import Most, most
from quintet_gateway.billing.meter import Meter
from quintet_gateway.catalog import Catalog, EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.conversation import standalone
from quintet_gateway.freshness import Freshness, Need
from quintet_gateway.generators import Template, is_extractive, key_of_model
from quintet_gateway.refining import RefiningLimits, candidates
from quintet_gateway.routing.policy import Answering
from quintet_gateway.routing.route import Route
from quintet_gateway.routing.trials import assigned
from quintet_gateway.searching import Query
from quintet_servicekit import attributes, identity
from quintet_servicekit.cache import key_of
from quintet_servicekit.token_estimate import estimate_tokens

METHOD_VERSION = 4
"""Raise it when answers are made, packed or cited in another way, so that kept ones
are not served any more."""


RERANKED_TOKENS = 512
"""Tokens of a hit that a reranker reads at most."""

_UNQUOTED = str.maketrans(dict.fromkeys('"“”„«»', " "))
"""All that the retriever takes for double quotes."""


@dataclass(frozen=True, slots=True)
class AskLimits:
    """Bounds of a prompt; see the settings of the same names."""

    default_passages: int
    context_tokens: int
    prompt_overhead_tokens: int
    passage_overhead_tokens: int
    default_answer_tokens: int
    min_citation_support: float
    duplicate_similarity: float
    remove_loads: bool
    withhold_instructions: bool
    abstain_below: float
    max_staleness_seconds: float
    refining: RefiningLimits


@lru_cache(maxsize=4)
def _deciding(limits: AskLimits) -> str:
    """Return the limits that decide what is in an answer: all but how stale it may be."""
    return repr(replace(limits, max_staleness_seconds=0.0))


@dataclass(frozen=True)
class Question:
    """A request, the models that will serve it, and how fresh it wants to be.

    `substitutes` are the generator's other models, by preference, for when the one
    that is wanted does not answer. With a `route` the generator is that for hard questions
    until the search has told which it is.
    """

    request: pb.AskRequest
    generator: generator_pb.Model
    substitutes: Sequence[generator_pb.Model]
    embedding: EmbeddingModel
    need: Need
    limits: AskLimits
    template: Template
    route: Route | None = None

    @cached_property
    def text(self) -> str:
        """What is asked of the documents: the question in the light of its turns. They
        decide nothing else of the answer."""
        return standalone(self.request.question, self.request.turns)

    @property
    def resolved(self) -> str:
        """The same where it is not the request's question verbatim, else empty."""
        return "" if self.text == self.request.question else self.text

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.request.collection

    def made_by(self, response: pb.AskResponse) -> bool:
        """Whether an answer was made by the very model and template that were to make
        it; the service may have been given others since we last looked."""
        models = [self.generator, self.route.easy] if self.route else [self.generator]
        return response.template_revision == self.template.revision and any(
            (response.model, response.model_revision) == (it.name, it.revision) for it in models
        )

    @property
    def deterministic(self) -> bool:
        """Whether the request leaves nothing to chance."""
        return self.request.temperature == 0 or self.request.HasField("seed")

    @property
    def may_be_kept(self) -> bool:
        """Whether an answer may be kept and a kept one be served."""
        return self.deterministic and self.request.cache != pb.CACHE_POLICY_NONE

    @property
    def max_staleness_seconds(self) -> float:
        """Age since it was last found to hold below which a kept answer may be served of
        which nobody can tell whether it still does; 0 where none may."""
        if not self.need.weak:
            return 0.0
        if self.request.HasField("max_staleness"):
            return float(self.request.max_staleness.ToNanoseconds() / 1e9)
        return self.limits.max_staleness_seconds

    @cached_property
    def key(self) -> str:
        """Key of the answer: two requests with one key have one answer."""
        return key_of(self.scope, self.text)

    @cached_property
    def scope(self) -> str:
        """Key of all that decides the answer but the question's words."""
        request, limits = self.request, self.limits
        return key_of(
            METHOD_VERSION,
            request.collection,
            self.embedding.name,
            self.embedding.revision,
            key_of_model(self.generator),
            self.route.key if self.route else "",
            self.template.name,
            self.template.revision,
            self.passages,
            request.filter.SerializeToString(deterministic=True)
            if request.HasField("filter")
            else "",
            request.mode or retriever_pb.SEARCH_MODE_HYBRID,
            request.max_tokens,
            f"{request.temperature} {request.seed if request.HasField('seed') else ''}",
            request.grounded_only,
            request.refinement.SerializeToString(deterministic=True),
            request.linked_passages,
            repr(self.abstain_below),
            _deciding(limits),
        )

    @property
    def abstain_below(self) -> float:
        """Answerability below which the answer is that the documents don't say."""
        if self.request.HasField("abstain_below"):
            return self.request.abstain_below
        return self.limits.abstain_below

    @property
    def passages(self) -> int:
        """Most passages to answer from."""
        return self.request.passages or self.limits.default_passages

    @property
    def most_tokens(self) -> int:
        """Tokens that its answer takes at most, as far as that is known before."""
        limits = self.limits
        answer = self.request.max_tokens or limits.default_answer_tokens
        return limits.context_tokens + limits.prompt_overhead_tokens + answer

    def given_to(self, model: generator_pb.Model) -> Question:
        """Return the question as that one of the generator's models is to answer it."""
        if model.name == self.generator.name:
            return self
        others = [it for it in (self.generator, *self.substitutes) if it.name != model.name]
        return replace(self, generator=model, substitutes=sorted(others, key=is_extractive))

    def most(self, meter: Meter, seconds: float) -> Most:
        """Return what its answer costs at most, in the seconds that are left."""
        asked, refinement = estimate_tokens(self.text), self.request.refinement
        reranked = candidates(refinement, self.passages, self.limits.refining)
        return most(
            meter.prices,
            meter.day,
            seconds=seconds,
            embedded=asked + (reranked * (asked + RERANKED_TOKENS) if refinement.rerank else 0),
            models=[it.name for it in (self.generator, *self.substitutes)],
            read=self.most_tokens + asked,
            written=self.request.max_tokens or self.limits.default_answer_tokens,
        )

    def query(self, consistency: retriever_pb.Consistency) -> Query:
        """Return the search for the question's passages, or for what is refined to them."""
        request = self.request
        return Query(
            collection=request.collection,
            text=searched_for(self.text),
            k=candidates(request.refinement, self.passages, self.limits.refining),
            mode=request.mode or retriever_pb.SEARCH_MODE_HYBRID,
            filter=request.filter if request.HasField("filter") else None,
            consistency=consistency,
        )

    @property
    def follows_links(self) -> bool:
        """Whether the answer rests on links too."""
        return bool(self.request.linked_passages)

    def links(self) -> links_pb.RelatedPassagesRequest:
        """Return the request for passages that are found through links, which lacks what
        the search found."""
        request = self.request
        return links_pb.RelatedPassagesRequest(
            collection=request.collection,
            text=searched_for(self.text),
            filter=request.filter if request.HasField("filter") else None,
            limit=request.linked_passages,
        )


def searched_for(question: str) -> str:
    """Return the text that a question's passages are searched by.

    Who quotes in a question does not ask for these very words, as a search's caller does:
    passages that say it in others answer it, too.
    """
    return question.translate(_UNQUOTED).strip() or question


class Policies(Protocol):
    """What tenants' policies say of answers; see `admission.policies.Policies`."""

    def answering(self, tenant: str) -> Answering: ...


class Questions:
    """Makes questions of requests."""

    def __init__(
        self, catalog: Catalog, freshness: Freshness, limits: AskLimits, policies: Policies
    ) -> None:
        self._catalog = catalog
        self._freshness = freshness
        self._limits = limits
        self._policies = policies

    async def of(self, chain: Chain, request: pb.AskRequest) -> Question:
        """Return the question that a request asks.

        Raises `ServiceError` MODEL_NOT_FOUND, TEMPLATE_NOT_FOUND, COLLECTION_NOT_FOUND, or
        INVALID_FIELD for a consistency token that is none.
        """
        need = self._freshness.need(request.collection, request.consistency)
        tenant = identity.current().tenant
        answering = self._policies.answering(tenant)
        routing = None if request.model else answering.routing
        wanted = routing.hard if routing else request.model
        generators = await self._catalog.generators()
        generator, *substitutes = generators.by_preference(wanted)
        route = None
        if routing is not None:
            easy, *_ = generators.by_preference(routing.easy)
            route = Route(easy, generator, routing.threshold)
        name = request.template or assigned(
            answering.templates, tenant, request.trial_unit or request.question
        )
        template = generators.template(name, generator)
        trace.get_current_span().set_attributes(
            {attributes.TEMPLATE: template.name, attributes.TEMPLATE_REVISION: template.revision}
        )
        chain.model = generator.name
        embedding = await self._catalog.embedding_model(chain, request.collection)
        chain.embedding_model, chain.embedding_revision = embedding.name, embedding.revision
        return Question(
            request=request,
            generator=generator,
            substitutes=substitutes,
            embedding=embedding,
            need=need,
            limits=self._limits,
            template=template,
            route=route,
        )
