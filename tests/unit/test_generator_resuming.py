"""Answers whose writer is lost on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from quintet_generator.models import Citation, Event, Finished, FinishReason, TextDelta
from quintet_generator.resuming import resumed
from quintet_servicekit.errors import Reason, ServiceError

LOST = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "gone", metadata={"dependency": "leader"})
END = Finished(FinishReason.STOP, 3, 4)
CITATIONS = [Citation(0, 0, 3, 0, 3, 1.0), Citation(0, 4, 7, 4, 7, 1.0)]


def text(*pieces: str) -> list[Event]:
    return [TextDelta(piece) for piece in pieces]


async def told(first: Sequence[Event], error: Exception, second: Sequence[Event]) -> list[Event]:
    """Return what is told when `first` ends with `error` and `second` is the new answer."""

    async def join(anywhere: bool) -> AsyncGenerator[Event]:
        for event in first if anywhere else second:
            yield event
        if anywhere:
            raise error

    async with aclosing(resumed(join)) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    ("first", "second", "rest"),
    [
        ([], ["abc", "def"], ["abc", "def"]),
        (["ab"], ["abc", "def"], ["c", "def"]),
        (["abc"], ["abc", "def"], ["def"]),
        (["a", "bcd"], ["abc", "def"], ["ef"]),
        (["abc", "def"], ["abcdef"], []),
    ],
)
async def test_what_the_caller_has_is_left_out_of_the_new_answer(
    first: list[str], second: list[str], rest: list[str]
) -> None:
    events = await told(text(*first), LOST, [*text(*second), END])
    assert events == [*text(*first), *text(*rest), END]


async def test_citations_are_told_once() -> None:
    whole = [*text("abc"), CITATIONS[0], *text(" def"), CITATIONS[1], END]
    assert await told(whole[:2], LOST, whole) == whole


@pytest.mark.parametrize("second", [["ab", "x"], ["ab"], []])
async def test_a_new_answer_that_begins_otherwise_is_none(second: list[str]) -> None:
    with pytest.raises(ServiceError) as caught:
        await told(text("abc"), LOST, [*text(*second), END])
    assert caught.value is LOST


async def test_other_errors_are_the_callers() -> None:
    error = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "no", metadata={"dependency": "m"})
    with pytest.raises(ServiceError) as caught:
        await told(text("abc"), error, [END])
    assert caught.value is error
