from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from quintet.cache.v1.cache_service_pb2 import CacheUse
from quintet.gateway.v1 import bill_pb2 as bill_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import routing_pb2 as routing_pb
from quintet_cli.answering import answer
from quintet_cli.connection import Gateway

COMPLETED = pb.Completed(
    model="m",
    finish_reason=1,  # type: ignore[arg-type]
    usage=pb.Usage(prompt_tokens=3),
    trail=pb.Trail(trace_id="t"),
    cache=pb.AnswerCache(use=CacheUse(tier="l1")),
    consistency_token="token",
    model_revision="m1",
    prompt_revision="p1",
    degradations=[pb.Degradation(hop="embedder")],
    dropped_sentences=1,
    abstention=pb.Abstention(answerability=0.5),
    resolved_question="Who built the bridge?",
    removed_loads=2,
    answer_id="i",
    prompt_hash="h",
    template="t",
    template_revision="tr",
    routing=routing_pb.Routing(model="m", ease=0.9),
    bill=bill_pb.Bill(cost_nanos=3),
)


class OneEvent:
    """A gateway whose stream has only its end."""

    stub = SimpleNamespace(AskStream=None)

    def __init__(self, completed: pb.Completed) -> None:
        self._completed = completed

    async def stream(self, *_: Any) -> AsyncIterator[pb.AskStreamResponse]:
        yield pb.AskStreamResponse(completed=self._completed)


async def test_all_that_the_end_of_a_stream_tells_is_in_the_whole() -> None:
    assert {field.name for field, _ in COMPLETED.ListFields()} == set(
        pb.Completed.DESCRIPTOR.fields_by_name
    )
    whole = await answer(cast(Gateway, OneEvent(COMPLETED)), pb.AskRequest())
    for name in pb.Completed.DESCRIPTOR.fields_by_name:
        assert getattr(whole, name) == getattr(COMPLETED, name), name


async def test_without_a_cache_the_whole_has_none() -> None:
    whole = await answer(cast(Gateway, OneEvent(pb.Completed())), pb.AskRequest())
    assert not whole.HasField("cache")
