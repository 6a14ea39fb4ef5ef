"""With too little time for all steps: what is left out, and that callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.replica import second_gateway
from support.stack import TestStack

from quintet.errors.v1 import error_reason_pb2 as errors_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
LITTLE = 4.0
"""Seconds: enough for an answer, but not for what the gateway keeps free for a search."""
MUCH = 60.0


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    """A gateway that takes searches to need ten seconds."""
    async with (
        second_gateway(stack, SEARCH_FLOOR_SECONDS="10") as address,
        gateway_stub(address) as it,
    ):
        yield it


def told(response: Any) -> list[tuple[str, int, int]]:
    return [(it.hop, it.cause, it.substitute) for it in response.degradations]


async def test_who_has_little_time_is_told_of_each_step_that_was_left_out(stub: Any) -> None:
    def ask(words: str, **fields: Any) -> pb.AskRequest:
        return pb.AskRequest(collection=name, question=words, **fields)

    late = errors_pb.ERROR_REASON_DEADLINE_EXCEEDED
    semantic = {"cache": pb.CACHE_POLICY_SEMANTIC}
    async with new_collection(stub, [BEES]) as name:
        kept = await stub.Ask(ask("How much honey do the bees make?"), timeout=MUCH)
        assert told(kept) == []

        near = ask("how much honey do bees make", **semantic)
        skipped = await stub.Ask(near, timeout=LITTLE)
        assert told(skipped) == [("semantic look-up", late, pb.SUBSTITUTE_STEP_SKIPPED)]
        assert skipped.degradations[0].note
        assert skipped.answer == kept.answer
        assert [hop.method for hop in skipped.trail.hops][-1] == "GenerateStream"
        near.fail_if_degraded = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(near, timeout=LITTLE)
        assert reason(caught.value) == "DEADLINE_EXCEEDED"
        near.fail_if_degraded = False
        served = await stub.Ask(near, timeout=MUCH)
        assert (told(served), served.cache.use.tier) == ([], "l1-semantic")

        await ingest(stub, name, [pb.Document(id="more", content="Bees also make wax.")])
        again = ask("How much honey do the bees make?")
        async with asyncio.timeout(10):
            stale = await stub.Ask(again, timeout=LITTLE)
            while not stale.degradations:  # the news of the write is under way
                await asyncio.sleep(0.05)
                stale = await stub.Ask(again, timeout=LITTLE)
        assert told(stale) == [("revalidation", late, pb.SUBSTITUTE_STALE_ANSWER)]
        assert stale.answer == kept.answer
        assert "Search" not in [hop.method for hop in stale.trail.hops]
        assert told(await stub.Ask(again, timeout=MUCH)) == []
