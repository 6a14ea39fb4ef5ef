"""Which of the generator's models answers when others fail, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.answering import Answerer
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import Degradations
from quintet_gateway.freshness import Need
from quintet_gateway.question import AskLimits, Question
from quintet_servicekit.errors import Reason, ServiceError

LIMITS = AskLimits(5, 1_500, 160, 256, 0.6, 60)
BIG, SMALL, EXTRACTIVE = (
    generator_pb.Model(name=name, backend=backend)
    for name, backend in (("big", "openai"), ("small", "openvino"), ("sentences", "extractive"))
)
HIT = retriever_pb.Hit(document_id="bees", text="Bees make honey.")
SERVICES = cast(
    Services,
    SimpleNamespace(
        tokenizer=SimpleNamespace(Count=None),
        generator=SimpleNamespace(GenerateStream=None),
        peer=lambda name: SimpleNamespace(name=name),
    ),
)


def backend_is_away() -> ServiceError:
    return ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "backend"})


def service_is_away() -> ServiceError:
    return ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "generator"})


class BrokenChain:
    """Fails as it is told to: `broken` has each model's error, and `estimated` says
    whether the tokenizer's own model fails."""

    def __init__(
        self,
        broken: Mapping[str, ServiceError],
        *,
        forbidden: bool = False,
        estimated: bool = False,
        after_text: bool = False,
    ) -> None:
        self.degradations = Degradations(forbidden=forbidden)
        self.tried: list[str] = []
        self._broken = broken
        self._estimated = estimated
        self._after_text = after_text

    async def unary(
        self, peer: Any, method: str, call: Any, request: Any, **_: Any
    ) -> tokenizer_pb.CountResponse:
        counts = [1] * len(request.texts)
        return tokenizer_pb.CountResponse(counts=counts, estimated=self._estimated)

    async def stream(
        self, peer: Any, method: str, call: Any, request: Any, **_: Any
    ) -> AsyncGenerator[generator_pb.GenerateStreamResponse]:
        self.tried.append(request.model)
        error = self._broken.get(request.model)
        if error is not None and not self._after_text:
            raise error
        delta = generator_pb.TextDelta(text="Honey.")
        yield generator_pb.GenerateStreamResponse(text_delta=delta)
        if error is not None:
            raise error
        completed = generator_pb.Completed(model=request.model)
        yield generator_pb.GenerateStreamResponse(completed=completed)

    def complete(self, last: generator_pb.Completed) -> None:
        pass


async def answered_by(chain: BrokenChain) -> str:
    """Return the name of the model that answers."""
    question = Question(
        pb.AskRequest(collection="notes", question="Who?"),
        BIG,
        (SMALL, EXTRACTIVE),
        EmbeddingModel("e", "er"),
        Need(),
        LIMITS,
    )
    events = [it async for it in Answerer(SERVICES).events(cast(Chain, chain), question, [HIT])]
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
