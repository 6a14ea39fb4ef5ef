"""What decides whether a kept answer may be served: its key, its epoch, its events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st
from support.asking import LIMITS, TEMPLATE

from quintet.gateway.v1 import bill_pb2 as bill_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import routing_pb2 as routing_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.events import Collector, events_of
from quintet_gateway.freshness import Freshness, Need
from quintet_gateway.generators import Template
from quintet_gateway.kept import digest
from quintet_gateway.question import AskLimits, Question
from quintet_gateway.routing.route import Route
from quintet_servicekit.consistency import Epoch, decode_token, encode_token
from quintet_servicekit.epochs import EpochWatch
from quintet_servicekit.errors import Reason, ServiceError

MODEL = generator_pb.Model(name="m", revision="r", prompt_revision="p")
EASY = generator_pb.Model(name="easy", revision="r")
NEWER = generator_pb.Model(name="easy", revision="s")
EMBEDDING = EmbeddingModel("e", "er")


def question(
    model: generator_pb.Model = MODEL,
    embedding: EmbeddingModel = EMBEDDING,
    limits: AskLimits = LIMITS,
    template: Template = TEMPLATE,
    route: Route | None = None,
    **fields: object,
) -> Question:
    request = pb.AskRequest(collection="notes", question="Who?")
    request.MergeFrom(pb.AskRequest(**fields))  # type: ignore[arg-type]
    return Question(request, model, (), embedding, Need(), limits, template, route)


def a_filter(value: str) -> retriever_pb.Filter:
    wanted = Value(string_value=value)
    return retriever_pb.Filter(equals=retriever_pb.Filter.Equals(key="k", value=wanted))


OTHERS = {
    "question": question(question="Whom?"),
    "collection": question(collection="mails"),
    "passages": question(passages=6),
    "filter": question(filter=a_filter("a")),
    "another filter": question(filter=a_filter("b")),
    "mode": question(mode=retriever_pb.SEARCH_MODE_DENSE),
    "template": question(template=Template("brief", "t")),
    "template's revision": question(template=Template("answer", "u")),
    "route": question(route=Route(EASY, MODEL, 0.8)),
    "route's threshold": question(route=Route(EASY, MODEL, 0.7)),
    "easy model's revision": question(route=Route(NEWER, MODEL, 0.8)),
    "max_tokens": question(max_tokens=7),
    "temperature": question(temperature=0.5),
    "seed": question(seed=0),
    "model": question(generator_pb.Model(name="n", revision="r", prompt_revision="p")),
    "model's revision": question(generator_pb.Model(name="m", revision="s", prompt_revision="p")),
    "embedding model": question(embedding=EmbeddingModel("f", "er")),
    "embedding's revision": question(embedding=EmbeddingModel("e", "es")),
    "only what is grounded": question(grounded_only=True),
    "refinement": question(refinement=pb.Refinement(rerank=True)),
    "server's limits": question(limits=replace(LIMITS, context_tokens=1_000)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_decides_an_answer_is_in_its_key(what: str) -> None:
    keys = [question().key, *(other.key for other in OTHERS.values())]
    assert keys.count(OTHERS[what].key) == 1


def test_what_does_not_decide_an_answer_is_not_in_its_key() -> None:
    same = [
        question(passages=5),
        question(mode=retriever_pb.SEARCH_MODE_HYBRID),
        question(temperature=0.0),
        question(refinement=pb.Refinement()),
        question(trial_unit="somebody"),
        question(generator_pb.Model(name="m", revision="r", prompt_revision="of all templates")),
        question(cache=pb.CACHE_POLICY_SEMANTIC),
        question(consistency=retriever_pb.Consistency(fully_consistent=True)),
    ]
    assert {it.key for it in same} == {question().key}


def test_an_answer_that_is_left_to_chance_may_not_be_kept() -> None:
    assert question().may_be_kept
    assert not question(temperature=0.7).may_be_kept
    assert question(temperature=0.7, seed=1).may_be_kept
    assert not question(cache=pb.CACHE_POLICY_NONE).may_be_kept


def test_an_answer_is_served_only_at_the_epoch_that_is_known() -> None:
    now = Epoch(3, 7)
    assert Need().met_by(now, known=now)
    assert not Need().met_by(now, known=None)
    assert not Need().met_by(now, known=Epoch(3, 8))
    assert not Need().met_by(now, known=Epoch(4, 7))


def test_a_token_is_met_by_its_epoch_and_later_ones_only() -> None:
    now = Epoch(3, 7)
    assert Need(epoch=Epoch(3, 7)).met_by(now, known=now)
    assert Need(epoch=Epoch(2, 99)).met_by(now, known=now)
    assert not Need(epoch=Epoch(3, 8)).met_by(now, known=now)


def test_who_wants_the_database_is_never_served_without_it() -> None:
    now = Epoch(3, 7)
    assert not Need(present=True).met_by(now, known=now)


def test_only_a_request_that_takes_anything_may_be_served_what_may_be_stale() -> None:
    assert Need().weak
    assert not Need(present=True).weak
    assert not Need(epoch=Epoch(3, 7)).weak


class Known(EpochWatch):
    def known(self, name: str) -> Epoch | None:
        return Epoch(3, 7)


@pytest.mark.parametrize(("wanted", "demanded"), [(None, 7), (Epoch(3, 6), 7), (Epoch(3, 9), 9)])
def test_the_retriever_is_asked_for_what_is_known_or_wanted(
    wanted: Epoch | None, demanded: int
) -> None:
    consistency = Freshness(Known()).demand("notes", Need(epoch=wanted))
    assert decode_token("notes", consistency.at_least_as_fresh) == Epoch(3, demanded)


def test_a_token_of_another_collection_is_refused() -> None:
    token = encode_token("mails", Epoch(3, 7))
    with pytest.raises(ServiceError) as caught:
        Freshness(EpochWatch()).need("notes", retriever_pb.Consistency(at_least_as_fresh=token))
    assert caught.value.reason is Reason.INVALID_FIELD


HITS = st.builds(
    retriever_pb.Hit,
    document_id=st.sampled_from("ab"),
    document_version=st.integers(1, 3),
    chunk_index=st.integers(0, 2),
)


@given(st.lists(HITS, max_size=4), st.lists(HITS, max_size=4))
def test_hits_have_one_digest_if_and_only_if_they_are_the_same_chunks(
    some: list[retriever_pb.Hit], others: list[retriever_pb.Hit]
) -> None:
    assert (digest(some) == digest(others)) == (some == others)


def test_an_answer_comes_whole_out_of_its_own_events() -> None:
    response = pb.AskResponse(
        answer="Because.",
        citations=[pb.Citation(passage=1, answer_end=8)],
        passages=[pb.Passage(number=1, hit=retriever_pb.Hit(text="Because."))],
        model="m",
        finish_reason=generator_pb.FINISH_REASON_STOP,
        usage=pb.Usage(prompt_tokens=3),
        trail=pb.Trail(trace_id="t"),
        cache=pb.AnswerCache(possibly_stale=True),
        consistency_token="token",
        model_revision="r",
        prompt_revision="p",
        degradations=[pb.Degradation(hop="embedder")],
        sentences=[pb.Sentence(answer_end=8, support=0.5)],
        dropped_sentences=1,
        abstention=pb.Abstention(answerability=0.5),
        resolved_question="Why?",
        removed_loads=2,
        bill=bill_pb.Bill(cost_nanos=3),
        answer_id="i",
        prompt_hash="h",
        template="t",
        template_revision="tr",
        routing=routing_pb.Routing(model="m", ease=0.9),
    )
    # A field that is added to the answer must be added to its events too.
    assert {field.name for field, _ in response.ListFields()} == {
        field.name for field in pb.AskResponse.DESCRIPTOR.fields
    }
    collector = Collector()
    for event in events_of(response):
        collector.add(event)
    assert collector.response == response
