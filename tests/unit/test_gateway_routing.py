"""How a question is routed and which template it gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import BIG, EXTRACTIVE, LIMITS, SERVICES, SMALL, TEMPLATE, BrokenChain

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway import yaml_file
from quintet_gateway.admission.policies import Policies
from quintet_gateway.admission.policy import Policy
from quintet_gateway.answering import Answerer
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.freshness import Need
from quintet_gateway.generators import Generators
from quintet_gateway.question import Question
from quintet_gateway.reader import Reader
from quintet_gateway.routing.difficulty import ease
from quintet_gateway.routing.policy import Routing
from quintet_gateway.routing.route import Route
from quintet_gateway.routing.trials import DEFAULT, assigned
from quintet_gateway.yaml_file import FileError
from quintet_servicekit.errors import Reason, ServiceError

EASY = "What do the bees of the old monastery make from the heather in August?"
HARD = "How do bees compare with wasps?"
HITS = [
    retriever_pb.Hit(
        document_id="bees",
        text="The bees of the old monastery make dark honey from the heather in August.",
    ),
    retriever_pb.Hit(document_id="wasps", text="Wasps are predators."),
]


def test_a_question_whose_words_one_sentence_has_is_easier_than_one_over_two_documents() -> None:
    easy, hard = ease(EASY, HITS), ease(HARD, HITS)
    assert easy.ease > hard.ease
    assert {it.name: it.value for it in easy.features}["documents"] == 1
    assert {it.name: it.value for it in hard.features}["documents"] == 2


@pytest.mark.parametrize("question", ["¿Qué hacen las abejas?", "the of and"])
def test_a_question_that_cannot_be_judged_is_hard(question: str) -> None:
    judged = ease(question, HITS)
    assert (judged.ease, judged.features) == (0.0, ())


@given(st.text(max_size=60), st.lists(st.builds(retriever_pb.Hit, text=st.text(max_size=60))))
def test_the_ease_of_anything_is_a_likelihood(question: str, hits: list[retriever_pb.Hit]) -> None:
    assert 0 <= ease(question, hits).ease <= 1


async def answered(question: str, threshold: float, chain: BrokenChain) -> pb.Completed:
    asked = Question(
        pb.AskRequest(collection="notes", question=question, abstain_below=0),
        BIG,
        (SMALL, EXTRACTIVE),
        EmbeddingModel("e", "er"),
        Need(),
        LIMITS,
        TEMPLATE,
        Route(EXTRACTIVE, BIG, threshold),
    )
    events = [
        it async for it in Answerer(SERVICES, Reader(0)).events(cast(Chain, chain), asked, HITS)
    ]
    return events[-1].completed


async def test_easy_questions_are_given_to_the_cheap_model_and_told_why() -> None:
    chain = BrokenChain({})
    completed = await answered(EASY, 0.8, chain)
    told = completed.routing
    assert chain.tried == ["sentences"]
    assert (told.model, told.easy, told.threshold) == ("sentences", True, 0.8)
    assert told.ease >= 0.8
    assert {it.name for it in told.features} == {"sentence", "words", "documents"}


async def test_hard_questions_are_given_to_the_other_model() -> None:
    chain = BrokenChain({})
    completed = await answered(HARD, 0.8, chain)
    assert chain.tried == ["big"]
    assert (completed.routing.model, completed.routing.easy) == ("big", False)


async def test_when_the_chosen_model_fails_the_others_stand_in_for_it() -> None:
    away = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "b"})
    chain = BrokenChain({"sentences": away})
    completed = await answered(EASY, 0.8, chain)
    assert chain.tried == ["sentences", "big"]
    assert (completed.routing.model, completed.model) == ("sentences", "big")
    assert chain.degradations.messages


async def test_an_answer_of_either_model_is_the_questions_own() -> None:
    question = Question(
        pb.AskRequest(),
        BIG,
        (),
        EmbeddingModel("e", "er"),
        Need(),
        LIMITS,
        TEMPLATE,
        Route(EXTRACTIVE, BIG, 0.8),
    )
    made = {
        name: question.made_by(pb.AskResponse(model=name, template_revision=TEMPLATE.revision))
        for name in ("big", "sentences", "small")
    }
    assert made == {"big": True, "sentences": True, "small": False}


UNITS = st.text(max_size=40)


@given(UNITS, UNITS)
def test_a_unit_has_the_same_template_each_time(tenant: str, unit: str) -> None:
    shares = {"short": 30.0, "long": 30.0}
    name = assigned(shares, tenant, unit)
    assert name == assigned(dict(reversed(shares.items())), tenant, unit)
    assert name in {DEFAULT, "short", "long"}


def test_shares_are_what_the_policy_says() -> None:
    shares = {"short": 20.0, "long": 5.0}
    counts = Counter(assigned(shares, "acme", str(unit)) for unit in range(20_000))
    assert counts["short"] / 20_000 == pytest.approx(0.20, abs=0.01)
    assert counts["long"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert {assigned({"short": 100.0}, "acme", str(unit)) for unit in range(1_000)} == {"short"}
    assert {assigned({"short": 0.0}, "acme", str(unit)) for unit in range(1_000)} == {DEFAULT}


def test_tenants_are_assigned_each_for_itself() -> None:
    shares = {"short": 50.0}
    alike = [
        assigned(shares, "acme", str(i)) == assigned(shares, "other", str(i)) for i in range(999)
    ]
    assert 0.4 < sum(alike) / len(alike) < 0.6


FILE = """
routing: {easy: extractive, hard: big, threshold: 0.9}
templates: {answer-full: 10}
tenants:
  plain: {routing: false, templates: {}}
  own: {routing: {easy: small}, templates: {answer-full: 50, mine: 50}}
  limited: {tenant: {streams: 3}}
"""


def test_a_tenants_own_policy_stands_instead_of_all_tenants(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(FILE)
    policy = yaml_file.read(file, Policy)
    everybodys = Routing(easy="extractive", hard="big", threshold=0.9)
    assert policy.answering("anybody").routing == everybodys
    assert policy.answering("limited").routing == everybodys
    assert policy.answering("limited").templates == {"answer-full": 10}
    assert policy.answering("plain").routing is None
    assert policy.answering("plain").templates == {}
    assert policy.answering("own").routing == Routing(easy="small", hard="", threshold=0.8)
    assert policy.answering("own").templates == {"answer-full": 50, "mine": 50}
    assert Policy().answering("anybody").routing is None


@pytest.mark.parametrize(
    "text",
    [
        "templates: {a: 60, b: 60}",
        "templates: {a: -1}",
        "templates: {'': 10}",
        "routing: {threshold: 2}",
        "routing: {cheap: extractive}",
        "tenants: {acme: {routing: true}}",
    ],
)
def test_a_policy_that_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(FileError):
        yaml_file.read(file, Policy)


def listed(*templates: generator_pb.Template) -> Generators:
    models = [generator_pb.Model(name="m", prompt_revision="of all", is_default=True), EXTRACTIVE]
    return Generators(generator_pb.ListModelsResponse(models=models, templates=templates))


def test_a_template_has_the_revision_of_it_alone() -> None:
    generators = listed(generator_pb.Template(name="answer", revision="a"))
    [model, _] = generators.by_preference("")
    assert generators.template("answer", model).revision == "a"
    with pytest.raises(ServiceError) as caught:
        generators.template("short", model)
    assert caught.value.reason is Reason.TEMPLATE_NOT_FOUND
    assert caught.value.metadata == {"template": "short", "known": "answer"}


def test_a_generator_of_before_has_one_revision_for_all_templates() -> None:
    generators = listed()
    [model, _] = generators.by_preference("m")
    assert generators.template("short", model).revision == "of all"


def test_a_model_that_a_policy_names_and_nobody_has_is_told() -> None:
    with pytest.raises(ServiceError) as caught:
        listed().by_preference("large")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_change_of_the_file_changes_what_is_tried_and_routed(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("templates: {answer-full: 20}")
    policies = Policies(Policy(), file)
    assert policies.answering("acme").templates == {"answer-full": 20}
    file.write_text("routing: {easy: small}")
    policies.look()
    assert policies.answering("acme").templates == {}
    assert policies.answering("acme").routing == Routing(easy="small")
    file.write_text("routing: {easy: 7}")
    policies.look()
    assert policies.answering("acme").routing == Routing(easy="small")
