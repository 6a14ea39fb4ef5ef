"""Of each thing that a caller, a model or a setting says: it is in the key of what is kept, or
here stands why it need not be. A new field is in neither, and fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

from support.asking import LIMITS, TEMPLATE
from support.every_field import OTHER, indifferent

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.degradation import Degradations
from quintet_gateway.expansion import LinkExpander
from quintet_gateway.freshness import Freshness, Need
from quintet_gateway.generators import Generators, Template
from quintet_gateway.question import AskLimits, Question, Questions
from quintet_gateway.refiner import Refiner
from quintet_gateway.refining import RefiningLimits
from quintet_gateway.routing.policy import Answering
from quintet_gateway.routing.route import Route
from quintet_gateway.searching import Searcher
from quintet_gateway.servicer import GatewayServicer
from quintet_generator.completion_cache import is_repeatable, key_of_completion
from quintet_generator.models import ModelInfo, Passage, Query
from quintet_retriever import requests
from quintet_retriever.models import Tuning
from quintet_retriever.search_state import request_digest
from quintet_servicekit.epochs import EpochWatch

EMBEDDING = EmbeddingModel("e", "er")
MODELS = [
    generator_pb.Model(name=name, revision="r", prompt_revision="p", is_default=name == "m")
    for name in ("m", OTHER)
]
LISTED = Generators(
    generator_pb.ListModelsResponse(
        models=MODELS,
        templates=[generator_pb.Template(name=it, revision="t") for it in ("answer", OTHER)],
    )
)
REQUEST = pb.AskRequest(
    collection="notes",
    question="And who built it?",
    turns=[pb.Turn(question="How tall is it?", answer="")],
)


class Catalog:
    """Knows two models and two templates."""

    async def generators(self) -> Generators:
        return LISTED

    async def embedding_model(self, chain: Any, collection: str) -> EmbeddingModel:
        return EMBEDDING


def question(request: pb.AskRequest, template: str = "answer", **others: Any) -> Question:
    """Return what `Questions` makes of a request whose tenant tries that template."""
    policies = SimpleNamespace(answering=lambda tenant: Answering(None, {template: 100}))
    made = Questions(cast(Any, Catalog()), Freshness(EpochWatch()), LIMITS, policies)
    return replace(asyncio.run(made.of(cast(Any, SimpleNamespace()), request)), **others)


NOT_IN_THE_KEY = {
    "consistency": "says which kept answer may be served: `Need.met_by`",
    "cache": "says whether a kept answer may be served, and which: `may_be_kept`, `wanted`",
    "fail_if_degraded": "degraded answers are not kept; in the key of a shared stream",
    "max_staleness": "says which stale one may be served; in the key of a shared stream",
    "trial_unit": "chooses the template, which is in the key",
}


def test_each_field_of_a_question_is_in_its_answers_key_or_need_not_be() -> None:
    assert indifferent(REQUEST, lambda it: question(it).key) == NOT_IN_THE_KEY.keys()
    by_trial = question(REQUEST, template=OTHER)
    assert by_trial.key != question(REQUEST).key


NOT_OF_THE_MODEL = {
    "backend": "the revision tells",
    "is_default": "who asks for no model is given one by name",
    "prompt_revision": "of all templates; the template's own is in the key",
    "suspended": "an answer of another model is degraded, and not kept",
}


def test_each_thing_that_is_told_of_a_model_is_in_the_key_or_need_not_be() -> None:
    asked = question(REQUEST)

    def key(model: generator_pb.Model) -> str:
        return replace(asked, generator=model).key

    def routed(model: generator_pb.Model) -> str:
        return replace(asked, route=Route(model, MODELS[0], 0.5)).key

    for decided in (key, routed):
        assert indifferent(MODELS[0], decided) == NOT_OF_THE_MODEL.keys()


NOT_OF_THE_QUESTION = {
    "substitutes": "an answer of theirs is degraded, and not kept",
    "need": "as `consistency`",
}


def test_each_part_of_a_question_and_each_setting_is_in_the_key_or_need_not_be() -> None:
    asked = question(REQUEST)
    others: dict[str, Any] = {
        "request": pb.AskRequest(collection="notes", question="Why?"),
        "generator": MODELS[1],
        "substitutes": MODELS,
        "embedding": EmbeddingModel("e", "es"),
        "need": Need(present=True),
        "limits": replace(LIMITS, remove_loads=False),
        "template": Template("answer", "u"),
        "route": Route(MODELS[1], MODELS[0], 0.5),
    }
    assert others.keys() == {it.name for it in fields(Question)}
    same = {name for name, it in others.items() if replace(asked, **{name: it}).key == asked.key}
    assert same == NOT_OF_THE_QUESTION.keys()

    def limits(other: AskLimits) -> str:
        return replace(asked, limits=other).key

    assert _indifferent_settings(LIMITS, limits) == {"max_staleness_seconds"}
    refining = _indifferent_settings(
        LIMITS.refining, lambda it: limits(replace(LIMITS, refining=it))
    )
    assert refining == set()
    parts: dict[str, EmbeddingModel | Template] = {"embedding": EMBEDDING, "template": TEMPLATE}
    for name, one in parts.items():
        for field in fields(one):
            other: dict[str, Any] = {name: replace(one, **{field.name: "z"})}
            assert replace(asked, **other).key != asked.key, field.name


def _indifferent_settings(base: AskLimits | RefiningLimits, key: Any) -> set[str]:
    same = set()
    for field in fields(base):
        value = getattr(base, field.name)
        if isinstance(value, RefiningLimits):
            continue
        changed: Any = not value if isinstance(value, bool) else value * 2 + 1
        if key(replace(base, **{field.name: changed})) == key(base):
            same.add(field.name)
    return same


class Calls:
    """A chain that takes down what services are asked for, and answers with little."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.degradations = Degradations()
        self.meter = SimpleNamespace(bill=lambda: None)

    def is_short_after(self, method: str) -> bool:
        return False

    is_short_for = is_short_after

    def trail(self) -> None:
        return None

    async def unary(self, peer: Any, method: str, call: Any, request: Any, **_: Any) -> Any:
        self.asked.append((method, request.SerializeToString(deterministic=True)))
        hits = [retriever_pb.Hit(document_id="a", text="So."), retriever_pb.Hit(document_id="b")]
        return {
            "Embed": embedder_pb.EmbedResponse(
                embeddings=[embedder_pb.Embedding(vector=b"\0" * 4)]
            ),
            "Search": retriever_pb.SearchResponse(hits=hits),
            "Rerank": embedder_pb.RerankResponse(results=[embedder_pb.RankedPassage(index=1)]),
            "RelatedPassages": links_pb.RelatedPassagesResponse(),
        }[method]


class Executor:
    """Runs at once."""

    async def run(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)


def searched(request: pb.SearchRequest) -> tuple[list[tuple[str, bytes]], bytes]:
    """Return what services are asked for by a search, and its response."""

    stubs = SimpleNamespace(Embed=None, Rerank=None, Search=None, RelatedPassages=None)
    services = cast(
        Any,
        SimpleNamespace(
            embedder=stubs, retriever=stubs, links=stubs, peer=str, link_peer=lambda: None
        ),
    )
    freshness = Freshness(EpochWatch())
    nothing = cast(Any, None)
    servicer = GatewayServicer(
        services,
        cast(Any, Catalog()),
        freshness,
        Searcher(services, cast(Any, Catalog()), freshness),
        Refiner(services, LIMITS.refining, cast(Any, Executor())),
        LinkExpander(services),
        *[nothing] * 5,
        admission=nothing,
        prices=nothing,
        ask_plan=nothing,
        search_plan=nothing,
        stream_limits=nothing,
        ask_seconds=1,
        max_question_chars=100,
    )
    chain = Calls()
    response = asyncio.run(servicer._searched(cast(Any, chain), request))
    return chain.asked, response.SerializeToString(deterministic=True)


def test_each_field_of_a_search_reaches_a_service_or_decides_what_is_failed() -> None:
    request = pb.SearchRequest(collection="notes", query="Who?", k=3)
    # It lets the call fail, and changes no hits.
    assert indifferent(request, searched) == {"fail_if_degraded"}


NOT_OF_A_RESULT = {
    "collection": "its id and its epoch are in the key beside the digest",
    "embedding_revision": "must be the collection's, before anything is looked up",
    "consistency": "says whether a kept result may be served",
    "known_state": "is compared by the database alone",
}


def test_each_field_of_the_retrievers_search_is_in_its_results_key_or_need_not_be() -> None:
    request = retriever_pb.SearchRequest(
        collection="notes", text="who", vector=b"\0" * 8, embedding_revision="r"
    )

    def digest(it: retriever_pb.SearchRequest) -> bytes:
        it.collection = "notes"  # a name that may be one
        return request_digest(requests.search_request(it), Tuning(100, 0.6))

    assert indifferent(request, digest) == NOT_OF_A_RESULT.keys()
    request.mode = retriever_pb.SEARCH_MODE_DENSE
    assert indifferent(request, digest) == NOT_OF_A_RESULT.keys() | {"text", "mode"}
    request.mode = retriever_pb.SEARCH_MODE_LEXICAL
    assert indifferent(request, digest) == NOT_OF_A_RESULT.keys() | {"vector"}


NOT_OF_A_COMPLETION: Mapping[str, str] = {
    "model": "the name and the revision that it led to are in the key",
    "no_cache": "nothing is looked up or kept then",
}


def test_each_part_of_a_generation_is_in_its_completions_key_or_need_not_be() -> None:
    query = Query("m", "Why?", (Passage("T", "So."),), "answer", 16, 0.5, 3)
    info = ModelInfo("m", "r", "b", 9, "k", "p")
    others: dict[str, Any] = {
        "model": "n",
        "question": "Who?",
        "passages": (Passage("T", "So. "),),
        "template": "other",
        "max_tokens": 17,
        "temperature": 0.6,
        "seed": 4,
        "stop": (".",),
        "json_schema": "{}",
        "logprobs": True,
        "no_cache": True,
        "template_revision": "u",
    }
    assert others.keys() == {it.name for it in fields(Query)}
    key = key_of_completion(query, info)
    same = {
        name
        for name, it in others.items()
        if key_of_completion(replace(query, **{name: it}), info) == key
    }
    assert same == NOT_OF_A_COMPLETION.keys()
    assert not is_repeatable(replace(query, no_cache=True))
    # The rest is what the revision tells, or what its callers pack prompts by.
    told = {it.name: "z" for it in fields(ModelInfo)}
    changed = {name for name, it in told.items() if _key_of(query, info, name, it) != key}
    assert changed == {"name", "revision"}


def _key_of(query: Query, info: ModelInfo, name: str, value: Any) -> str:
    return key_of_completion(query, replace(info, **{name: value}))
