"""Faults of a game day: asked for with a question, done by a service behind the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from support.gateway import gateway_stub, new_collection
from support.replica import second_gateway
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
LEXICAL = [("embedder", pb.SUBSTITUTE_LEXICAL_SEARCH)]


async def asked(stub: Any, collection: str, fault: str, **options: Any) -> list[tuple[str, int]]:
    """Return what an answer to a question with a fault is degraded by."""
    request = pb.AskRequest(
        collection=collection,
        question="What do bees make in summer?",
        cache=pb.CACHE_POLICY_NONE,
    )
    answer = await stub.Ask(request, metadata=(("quintet-fault", fault),), **options)
    assert answer.answer == "Bees make honey."
    return [(it.hop, it.substitute) for it in answer.degradations]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ("embedder/Embed;abort=UNAVAILABLE", 10.0),
        # The vector would come a second after all of the time has gone.
        ("embedder/Embed;delay=3s", 2.0),
    ],
)
async def test_a_question_may_ask_for_the_embedders_failure_and_no_other_sees_it(
    stack: TestStack, fault: str, seconds: float
) -> None:
    async with (
        second_gateway(stack, FAULT_INJECTION="true") as address,
        gateway_stub(address) as game,
        gateway_stub(stack.gateway) as stub,
        new_collection(stub, [BEES]) as name,
    ):
        assert await asked(game, name, "gateway/Search;abort=UNAVAILABLE") == []
        assert await asked(game, name, fault, timeout=seconds) == LEXICAL
        assert await asked(game, name, "gateway/Ask;delay=1ms") == []
        # This gateway does not allow it, so its embedder, who does, is not told.
        assert await asked(stub, name, fault) == []
