"""Streams of callers whose credential ends meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from quintet_gateway.access.ring import refused
from quintet_gateway.access.standing import Standing
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import ANYBODY, Identity
from quintet_servicekit.incoming import Metadata


class Caller:
    """A caller whose credential may end; the guard lets everything pass."""

    def __init__(self) -> None:
        self.ended = False
        self.asked: list[tuple[str, Metadata]] = []

    async def identify(self, method: str, metadata: Metadata) -> Identity:
        self.asked.append((method, metadata))
        if self.ended:
            raise refused("the API key was revoked")
        return ANYBODY

    def around(self, method: str, behaviour: Any, *, streams: bool) -> Any:
        return behaviour

    def invocation_metadata(self) -> Metadata:
        return (("authorization", "Bearer x"),)


async def _numbers(_: Any, __: Any) -> AsyncIterator[int]:
    for number in range(10):
        yield number


async def test_a_stream_ends_after_what_was_acknowledged_when_its_credential_has_ended() -> None:
    caller, told = Caller(), []
    stream = Standing(caller, caller, seconds=0.0).around("S/Ingest", _numbers, streams=True)
    with pytest.raises(ServiceError) as failed:
        async with aclosing(stream(None, caller)) as numbers:
            async for number in numbers:
                told.append(number)
                caller.ended = number == 3
    assert failed.value.reason is Reason.UNAUTHENTICATED
    assert told == [0, 1, 2, 3]
    assert caller.asked == [("S/Ingest", (("authorization", "Bearer x"),))] * 4


async def test_a_short_stream_and_a_call_ask_once() -> None:
    caller = Caller()
    standing = Standing(caller, caller, seconds=60.0)
    async with aclosing(standing.around("S/Ingest", _numbers, streams=True)(None, caller)) as its:
        assert [it async for it in its] == list(range(10))
    assert standing.around("S/Ask", _numbers, streams=False) is _numbers
    assert caller.asked == []


async def test_a_stream_asks_at_once_when_a_credential_has_changed() -> None:
    caller, told, changes = Caller(), [], [7]
    standing = Standing(caller, caller, seconds=3600.0, changes=lambda: changes[0])
    async with aclosing(standing.around("S/Ingest", _numbers, streams=True)(None, caller)) as its:
        async for number in its:
            told.append(number)
            if number in (2, 6):
                changes[0] += 1
    assert told == list(range(10))
    assert len(caller.asked) == 2
