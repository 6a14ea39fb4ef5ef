"""Which of the generator's models answers when others fail, and what is told of it."""

from __future__ import annotations

from typing import cast

import pytest
from support.asking import BIG, EXTRACTIVE, LIMITS, SERVICES, SMALL, TEMPLATE, BrokenChain

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.answering import Answerer
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.freshness import Need
from quintet_gateway.question import Question
from quintet_gateway.reader import Reader
from quintet_servicekit.errors import Reason, ServiceError

HIT = retriever_pb.Hit(document_id="bees", text="Bees make honey.")


def backend_is_away() -> ServiceError:
    return ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "backend"})


def service_is_away() -> ServiceError:
    return ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "generator"})


async def answered_by(chain: BrokenChain) -> str:
    """Return the name of the model that answers."""
    question = Question(
        pb.AskRequest(collection="notes", question="Who?"),
        BIG,
        (SMALL, EXTRACTIVE),
        EmbeddingModel("e", "er"),
        Need(),
        LIMITS,
        TEMPLATE,
    )
    events = [
        it async for it in Answerer(SERVICES, Reader(0)).events(cast(Chain, chain), question, [HIT])
    ]
    return events[-1].completed.model


def told(chain: BrokenChain) -> list[tuple[str, int]]:
    return [(it.hop, it.substitute) for it in chain.degradations.messages]


async def test_the_wanted_model_answers_and_nothing_is_told() -> None:
    chain = BrokenChain({})
    assert await answered_by(chain) == "big"
    assert told(chain) == []


async def test_another_model_answers_for_one_that_is_away_and_says_so() -> None:
    chain = BrokenChain({"big": backend_is_away()})
    assert await answered_by(chain) == "small"
    assert told(chain) == [("generator", pb.SUBSTITUTE_OTHER_MODEL)]


async def test_the_passages_sentences_are_the_last_resort() -> None:
    slow = ServiceError(Reason.DEADLINE_EXCEEDED, "slow", metadata={"hop": "generator"})
    chain = BrokenChain({"big": slow, "small": backend_is_away()})
    assert await answered_by(chain) == "sentences"
    assert chain.tried == ["big", "small", "sentences"]
    assert told(chain) == [("generator", pb.SUBSTITUTE_EXTRACTIVE_ANSWER)]


async def test_a_substitute_that_cannot_do_what_is_asked_is_passed_by() -> None:
    unable = ServiceError(Reason.UNSUPPORTED_BY_MODEL, "cannot")
    chain = BrokenChain({"big": backend_is_away(), "small": unable})
    assert await answered_by(chain) == "sentences"


async def test_where_no_model_answers_the_wanted_ones_failure_is_told() -> None:
    wanted = backend_is_away()
    others = {"small": backend_is_away(), "sentences": backend_is_away()}
    with pytest.raises(ServiceError) as caught:
        await answered_by(BrokenChain({"big": wanted, **others}))
    assert caught.value is wanted


@pytest.mark.parametrize(
    ("error", "forbidden"),
    [
        (service_is_away(), False),
        (backend_is_away(), True),
        (ServiceError(Reason.INPUT_TOO_LONG, "long"), False),
    ],
    ids=["service away", "forbidden", "about the request"],
)
async def test_no_other_model_is_tried_where_none_can_or_may_answer(
    error: ServiceError, forbidden: bool
) -> None:
    chain = BrokenChain({"big": error}, forbidden=forbidden)
    with pytest.raises(ServiceError) as caught:
        await answered_by(chain)
    assert caught.value is error
    assert chain.tried == ["big"]


async def test_text_that_has_been_sent_is_not_begun_anew_by_another_model() -> None:
    error = backend_is_away()
    chain = BrokenChain({"big": error}, after_text=True)
    with pytest.raises(ServiceError) as caught:
        await answered_by(chain)
    assert caught.value is error
    assert chain.tried == ["big"]


async def test_counts_that_the_tokenizer_estimated_are_told_or_refused() -> None:
    chain = BrokenChain({}, estimated=True)
    await answered_by(chain)
    assert told(chain) == [("tokenizer", pb.SUBSTITUTE_TOKEN_ESTIMATE)]
    with pytest.raises(ServiceError) as caught:
        await answered_by(BrokenChain({}, estimated=True, forbidden=True))
    assert caught.value.metadata == {"dependency": "tokenizer"}
