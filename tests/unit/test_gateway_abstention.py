"""When the answer is that the documents don't say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from support.asking import BIG, LIMITS, SERVICES, TEMPLATE, BrokenChain

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.abstention import ABSTENTION, answerability
from quintet_gateway.answering import Answerer
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.freshness import Need
from quintet_gateway.question import Question
from quintet_gateway.reader import Reader
from quintet_gateway.support import Evidence

TEXT = "The bridge over the Tay was opened in 1966. It is made of concrete and steel."
ABOUT = "When was the bridge over the Tay opened?"
ELSEWHERE = "Who painted the ceiling of the chapel in Rome?"
MODEL = "all-MiniLM-L6-v2"


def hit(cosine: float | None) -> retriever_pb.Hit:
    scores = retriever_pb.Scores() if cosine is None else retriever_pb.Scores(dense=cosine)
    return retriever_pb.Hit(document_id="bridge", text=TEXT, scores=scores)


def judged(question: str, cosine: float | None = None, model: str = MODEL) -> float | None:
    return answerability(question, [hit(cosine)], Evidence([TEXT]), model)


def likely(question: str, cosine: float | None = None, model: str = MODEL) -> float:
    found = judged(question, cosine, model)
    assert found is not None
    return found


@pytest.mark.parametrize("model", [MODEL, "another"])
@pytest.mark.parametrize("cosine", [0.6, None])
def test_a_question_that_the_passages_answer_is_likelier_to_be_answered(
    cosine: float | None, model: str
) -> None:
    there = likely(ABOUT, cosine, model)
    elsewhere = likely(ELSEWHERE, cosine and 0.1, model)
    assert 0 <= elsewhere < 0.2 < 0.5 < there <= 1


def test_cosines_count_only_from_the_model_that_they_were_calibrated_on() -> None:
    assert likely(ABOUT, 0.9) > likely(ABOUT, 0.1)
    assert likely(ABOUT, 0.9, "another") == likely(ABOUT, 0.1, "another") == likely(ABOUT)


@pytest.mark.parametrize("question", ["concrete", "Quand le pont fut-il ouvert?", "Who?", "??"])
def test_what_is_no_question_in_english_is_not_judged(question: str) -> None:
    assert judged(question, 0.1) is None


class Unsupported(BrokenChain):
    """Answers with what no passage supports."""

    async def stream(self, *_: Any, **__: Any) -> AsyncGenerator[Any]:
        self.tried.append("big")
        delta = generator_pb.TextDelta(text="Cats purr loudly.")
        yield generator_pb.GenerateStreamResponse(text_delta=delta)
        completed = generator_pb.Completed(model="big")
        yield generator_pb.GenerateStreamResponse(completed=completed)


async def events_of(chain: BrokenChain, **fields: Any) -> list[pb.AskStreamResponse]:
    request = pb.AskRequest(collection="notes", **fields)
    question = Question(request, BIG, (), EmbeddingModel(MODEL, "r"), Need(), LIMITS, TEMPLATE)
    events = Answerer(SERVICES, Reader(0)).events(cast(Chain, chain), question, [hit(0.05)])
    return [event async for event in events]


async def test_what_the_documents_do_not_say_is_told_without_asking_a_model() -> None:
    chain = BrokenChain({})
    found, text, end = await events_of(chain, question=ELSEWHERE)
    assert chain.tried == []
    assert len(found.passages_found.passages) == 1
    assert text.text_delta.text == ABSTENTION
    assert end.completed.abstention.abstained
    assert end.completed.abstention.answerability < end.completed.abstention.threshold


async def test_a_request_may_want_an_answer_all_the_same() -> None:
    chain = BrokenChain({})
    events = await events_of(chain, question=ELSEWHERE, abstain_below=0.0)
    assert chain.tried == ["big"]
    assert not events[-1].completed.abstention.abstained


async def test_an_answer_of_which_nothing_is_grounded_is_an_abstention() -> None:
    events = await events_of(
        Unsupported({}), question=ELSEWHERE, abstain_below=0.0, grounded_only=True
    )
    text = "".join(event.text_delta.text for event in events)
    assert text == ABSTENTION
    assert events[-1].completed.abstention.abstained
    assert events[-1].completed.dropped_sentences == 1
