"""Streams in flight within one process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from quintet_servicekit.cache import CacheSettings, Codec, Flights
from quintet_servicekit.errors import Reason, ServiceError

TEXT: Codec[str] = Codec(str.encode, lambda raw: bytes(raw).decode())
WORDS = ["one", "two", "three", "four"]


def flights_of(**settings: float) -> Flights[str]:
    return Flights("completions", TEXT, CacheSettings.model_validate(settings))


class Source:
    """Streams words; it waits before the word number `pause` until it may go on."""

    def __init__(self, *, pause: int = 0, error: Exception | None = None) -> None:
        self.began = 0
        self.closed = 0
        self.pausing = asyncio.Event()
        self.go = asyncio.Event()
        self._pause = pause
        self._error = error

    async def __call__(self) -> AsyncGenerator[str]:
        self.began += 1
        try:
            for place, word in enumerate(WORDS):
                if place == self._pause:
                    self.pausing.set()
                    await self.go.wait()
                    if self._error is not None:
                        raise self._error
                yield word
        finally:
            self.closed += 1


async def read(flights: Flights[str], source: Source, key: str = "key") -> list[str]:
    async with aclosing(flights.join(key, source)) as events:
        return [event async for event in events]


async def test_a_thousand_callers_share_one_stream_and_each_gets_all_of_it() -> None:
    flights, source = flights_of(), Source(pause=2)
    callers = [asyncio.create_task(read(flights, source)) for _ in range(500)]
    await source.pausing.wait()
    callers += [asyncio.create_task(read(flights, source)) for _ in range(500)]
    await asyncio.sleep(0)
    source.go.set()
    assert await asyncio.gather(*callers) == [WORDS] * 1000
    assert (source.began, source.closed) == (1, 1)


async def test_a_follower_gets_what_was_streamed_before_it_came_and_then_what_comes() -> None:
    flights, source = flights_of(), Source(pause=3)
    first = asyncio.create_task(read(flights, source))
    await source.pausing.wait()
    async with aclosing(flights.join("key", source)) as events:
        assert [await anext(events) for _ in range(3)] == WORDS[:3]
        source.go.set()
        assert await anext(events) == WORDS[3]
    assert await first == WORDS


async def test_a_caller_who_does_not_read_holds_nobody_up() -> None:
    flights, source = flights_of(), Source(pause=1)
    async with aclosing(flights.join("key", source)) as idle:
        assert await anext(idle) == WORDS[0]
        source.go.set()
        assert await read(flights, source) == WORDS
        assert [word async for word in idle] == WORDS[1:]


async def test_the_first_caller_may_leave_and_the_others_get_the_rest() -> None:
    flights, source = flights_of(), Source(pause=2)
    first = asyncio.create_task(read(flights, source))
    await source.pausing.wait()
    second = asyncio.create_task(read(flights, source))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.go.set()
    assert await second == WORDS
    assert (source.began, source.closed) == (1, 1)


@pytest.mark.parametrize("pause", range(4))
async def test_when_the_last_caller_leaves_the_work_has_ended(pause: int) -> None:
    flights, source = flights_of(), Source(pause=pause)
    callers = [asyncio.create_task(read(flights, source)) for _ in range(3)]
    await source.pausing.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert source.closed == 1
    source.go.set()
    assert await read(flights, source) == WORDS
    assert source.began == 2


async def test_a_caller_who_leaves_before_the_work_has_begun_leaves_nothing_behind() -> None:
    flights, source = flights_of(), Source(pause=9)
    caller = asyncio.create_task(read(flights, source))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert source.began == source.closed
    assert await read(flights, source) == WORDS


async def test_an_error_comes_to_all_after_the_events_before_it() -> None:
    error = ServiceError(Reason.OVERLOADED, "full")
    flights, source = flights_of(), Source(pause=2, error=error)

    async def until_error() -> list[str]:
        words = []
        with pytest.raises(ServiceError) as caught:
            async with aclosing(flights.join("key", source)) as events:
                async for word in events:
                    words.append(word)  # noqa: PERF401 - what came before the error
        assert caught.value is error
        return words

    callers = [asyncio.create_task(until_error()) for _ in range(5)]
    await source.pausing.wait()
    source.go.set()
    assert await asyncio.gather(*callers) == [WORDS[:2]] * 5
    assert source.began == 1


@pytest.mark.parametrize("reason", [Reason.DEADLINE_EXCEEDED, Reason.CANCELLED])
async def test_a_leader_out_of_time_before_its_first_event_is_followed_by_another(
    reason: Reason,
) -> None:
    flights = flights_of()
    failing, working = Source(pause=0, error=ServiceError(reason, "no time")), Source(pause=9)
    first = asyncio.create_task(read(flights, failing))
    await failing.pausing.wait()
    others = [asyncio.create_task(read(flights, working)) for _ in range(3)]
    await asyncio.sleep(0)
    failing.go.set()
    with pytest.raises(ServiceError) as caught:
        await first
    assert caught.value.reason is reason
    assert await asyncio.gather(*others) == [WORDS] * 3
    assert working.began == 1


async def test_a_leader_out_of_time_after_an_event_makes_its_followers_ask_again() -> None:
    flights = flights_of()
    failing = Source(pause=2, error=ServiceError(Reason.DEADLINE_EXCEEDED, "no time"))
    first = asyncio.create_task(read(flights, failing))
    await failing.pausing.wait()
    second = asyncio.create_task(read(flights, failing))
    await asyncio.sleep(0)
    failing.go.set()
    reasons = [
        error.reason
        for error in await asyncio.gather(first, second, return_exceptions=True)
        if isinstance(error, ServiceError)
    ]
    assert reasons == [Reason.DEADLINE_EXCEEDED, Reason.DEPENDENCY_UNAVAILABLE]


async def test_keys_fly_apart_and_a_stream_that_ended_is_not_joined() -> None:
    flights, source = flights_of(), Source(pause=9)
    await asyncio.gather(read(flights, source, "a"), read(flights, source, "b"))
    await read(flights, source, "a")
    assert source.began == 3


async def long() -> AsyncGenerator[str]:
    for number in range(100):
        yield str(number)


async def test_a_long_stream_goes_on_at_the_pace_of_its_quickest_reader() -> None:
    flights = flights_of(max_value_bytes=1000)
    async with (
        aclosing(flights.join("key", long)) as quick,
        aclosing(flights.join("key", long)) as slow,
    ):
        words = []
        async for word in quick:
            words.append(word)
            if word == "0":
                assert await anext(slow) == "0"
            await asyncio.sleep(0)
        assert words == [str(number) for number in range(100)]
        with pytest.raises(ServiceError) as caught:
            await anext(slow)
        assert caught.value.reason is Reason.OVERLOADED


async def test_who_comes_too_late_for_a_streams_first_event_starts_another() -> None:
    flights = flights_of(max_value_bytes=1000)
    async with aclosing(flights.join("key", long)) as early:
        for number in range(50):
            assert await anext(early) == str(number)
            await asyncio.sleep(0)
        async with aclosing(flights.join("key", long)) as late:
            assert [word async for word in late] == [str(number) for number in range(100)]
        assert await anext(early) == "50"


@pytest.mark.parametrize("turns", range(12))
async def test_a_caller_cancelled_at_any_point_never_harms_the_other(turns: int) -> None:
    flights, source = flights_of(), Source(pause=9)
    for leaver_leads in (True, False):
        callers = [asyncio.create_task(read(flights, source)) for _ in range(2)]
        leaver, other = callers if leaver_leads else reversed(callers)
        for _ in range(turns):
            await asyncio.sleep(0)
        leaver.cancel()
        assert await other == WORDS
        await asyncio.gather(leaver, return_exceptions=True)
    assert source.began == source.closed


async def test_closing_ends_all_streams() -> None:
    flights, source = flights_of(), Source(pause=1)
    caller = asyncio.create_task(read(flights, source))
    await source.pausing.wait()
    await flights.aclose()
    assert source.closed == 1
    with pytest.raises(ServiceError):
        await caller
