"""Streams in flight across replicas, with a real Valkey between them."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis import Redis
from support.cache_leader import KEY, TEXT, WORDS, leader

from quintet_local.valkey import Valkey
from quintet_servicekit.cache import CacheSettings, Flights, Remote, open_remote
from quintet_servicekit.errors import Reason, ServiceError

EVENTS = [f"token {n}" for n in range(20)]


class Source:
    """Streams `EVENTS`; it waits before the event number `pause` until it may go on."""

    def __init__(self, *, pause: int = 0, error: Exception | None = None) -> None:
        self.began = 0
        self.pausing = asyncio.Event()
        self.go = asyncio.Event()
        self._pause = pause
        self._error = error

    async def __call__(self) -> AsyncGenerator[str]:
        self.began += 1
        for place, event in enumerate(EVENTS):
            if place == self._pause:
                self.pausing.set()
                await self.go.wait()
                if self._error is not None:
                    raise self._error
            yield event


def settings_of(url: str, **settings: float) -> CacheSettings:
    return CacheSettings.model_validate({"redis_url": SecretStr(url), **settings})


async def read(flights: Flights[str], source: Source) -> list[str]:
    async with aclosing(flights.join(KEY, source)) as events:
        return [event async for event in events]


@pytest_asyncio.fixture
async def replicas(redis_url: str) -> AsyncIterator[list[Flights[str]]]:
    """Two replicas' flights, each with its own connections."""
    # A loaded machine must not look like a Redis that is gone.
    settings = settings_of(redis_url, lease_seconds=0.5, redis_timeout_seconds=1)
    async with open_remote(settings) as one, open_remote(settings) as other:
        yield [Flights("l1", TEXT, settings, remote) for remote in (one, other)]


async def test_replicas_asked_a_thousand_times_stream_once(replicas: list[Flights[str]]) -> None:
    source = Source(pause=10)
    callers = [asyncio.create_task(read(flights, source)) for flights in replicas * 500]
    await source.pausing.wait()
    await asyncio.sleep(0.05)
    source.go.set()
    assert await asyncio.gather(*callers) == [EVENTS] * 1000
    assert source.began == 1


async def test_a_follower_in_another_replica_gets_the_events_as_they_come(
    replicas: list[Flights[str]],
) -> None:
    source = Source(pause=5)
    leading = asyncio.create_task(read(replicas[0], source))
    await source.pausing.wait()
    async with aclosing(replicas[1].join(KEY, source)) as events:
        assert [await anext(events) for _ in range(5)] == EVENTS[:5]
        began = time.monotonic()
        source.go.set()
        assert await anext(events) == EVENTS[5]
        assert time.monotonic() - began < 0.1
        assert [event async for event in events] == EVENTS[6:]
    assert await leading == EVENTS
    assert source.began == 1


async def test_a_stream_longer_than_its_lease_stays_one(replicas: list[Flights[str]]) -> None:
    source = Source(pause=5)
    callers = [asyncio.create_task(read(flights, source)) for flights in replicas]
    await asyncio.sleep(1.6)
    source.go.set()
    assert await asyncio.gather(*callers) == [EVENTS] * 2
    assert source.began == 1


async def test_an_error_of_the_leader_comes_to_the_other_replica_whole(
    replicas: list[Flights[str]],
) -> None:
    error = ServiceError(Reason.OVERLOADED, "full", metadata={"queue": "batch"}, retry_after=3)
    source = Source(pause=2, error=error)
    callers = [asyncio.create_task(read(flights, source)) for flights in replicas]
    await source.pausing.wait()
    await asyncio.sleep(0.05)
    source.go.set()
    for result in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(result, ServiceError)
        assert (result.reason, result.message) == (Reason.OVERLOADED, "full")
        assert (result.metadata, result.retry_after) == ({"queue": "batch"}, 3)
    assert source.began == 1


@pytest.mark.parametrize("pause", [0, 3])
async def test_when_the_leaders_callers_leave_the_other_replica_knows_at_once(
    pause: int, replicas: list[Flights[str]]
) -> None:
    leading, own = Source(pause=pause), Source(pause=99)
    first = asyncio.create_task(read(replicas[0], leading))
    await leading.pausing.wait()
    second = asyncio.create_task(read(replicas[1], own))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    first.cancel()
    [result] = await asyncio.gather(second, return_exceptions=True)
    assert time.monotonic() - began < 0.4
    if pause == 0:  # nothing was delivered: it streams itself
        assert result == EVENTS
    else:
        assert isinstance(result, ServiceError)
        assert result.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert result.retry_after is not None


async def test_when_the_leading_process_is_killed_before_an_event_another_takes_over(
    replicas: list[Flights[str]], redis_url: str
) -> None:
    source = Source(pause=99)
    async with leader("stream", redis_url, lease_seconds=0.5):
        following = asyncio.create_task(read(replicas[0], source))
        await asyncio.sleep(0.8)
        assert not following.done()
    began = time.monotonic()
    assert await following == EVENTS
    assert time.monotonic() - began < 3


async def test_when_the_leading_process_is_killed_after_an_event_its_followers_ask_again(
    replicas: list[Flights[str]], redis_url: str
) -> None:
    source = Source(pause=99)
    async with leader("stream", redis_url, lease_seconds=0.5, words=2):
        events = replicas[0].join(KEY, source)
        assert [await anext(events) for _ in WORDS] == WORDS
    with pytest.raises(ServiceError) as caught:
        await anext(events)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert await read(replicas[0], source) == EVENTS


async def test_nothing_of_a_stream_stays_in_redis_for_ever(
    replicas: list[Flights[str]], redis_url: str
) -> None:
    assert await read(replicas[0], Source(pause=99)) == EVENTS
    await asyncio.sleep(0.05)
    with Redis.from_url(redis_url) as client:
        [stream] = client.keys("*")
        assert 0 < client.pttl(stream) <= 10_000


async def test_a_stream_too_long_for_redis_goes_on_and_others_stream_for_themselves(
    redis_url: str,
) -> None:
    settings = settings_of(redis_url, max_value_bytes=500)
    async with open_remote(settings) as one, open_remote(settings) as other:
        source, own = Source(pause=15), Source(pause=99)
        leading = asyncio.create_task(read(Flights("l1", TEXT, settings, one), source))
        await source.pausing.wait()
        assert await read(Flights("l1", TEXT, settings, other), own) == EVENTS
        source.go.set()
        assert await leading == EVENTS


@pytest.mark.parametrize("damage", ["gap", "nonsense", "wrong type", "gone"])
async def test_a_damaged_stream_is_not_followed(
    damage: str, replicas: list[Flights[str]], redis_url: str
) -> None:
    leading, own = Source(pause=3), Source(pause=99)
    first = asyncio.create_task(read(replicas[0], leading))
    await leading.pausing.wait()
    await asyncio.sleep(0.05)
    with Redis.from_url(redis_url) as client:
        [stream] = (name for name in client.keys("*") if b":stream:" in name)
        if damage == "gap":
            client.xdel(stream, client.xrange(stream)[1][0])
        else:
            client.delete(stream)
        if damage == "nonsense":
            client.xadd(stream, {"x": "y"})
        if damage == "wrong type":
            client.set(stream, "text")
    second = asyncio.create_task(read(replicas[1], own))
    await asyncio.sleep(0.1)
    leading.go.set()
    assert await first == EVENTS
    [result] = await asyncio.gather(second, return_exceptions=True)
    if damage == "gap":  # one event had been delivered
        assert isinstance(result, ServiceError)
        assert result.reason is Reason.DEPENDENCY_UNAVAILABLE
    else:
        assert result == EVENTS


@pytest.mark.parametrize("how", ["killed", "frozen", "emptied"])
async def test_redis_in_trouble_amid_a_stream_breaks_no_leader(how: str, tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    child = await valkey.start()
    settings = settings_of(valkey.url, lease_seconds=0.3)
    try:
        async with open_remote(settings) as remote:
            assert isinstance(remote, Remote)
            flights, source = Flights("l1", TEXT, settings, remote), Source(pause=5)
            callers = [asyncio.create_task(read(flights, source)) for _ in range(3)]
            await source.pausing.wait()
            if how == "killed":
                child.kill()
                await child.wait()
            elif how == "frozen":
                child.send_signal(signal.SIGSTOP)
            else:
                with Redis.from_url(valkey.url) as client:
                    client.flushall()
            await asyncio.sleep(0.5)
            source.go.set()
            assert await asyncio.gather(*callers) == [EVENTS] * 3
            assert source.began == 1
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)
            await valkey.stop(child)


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_follower_cancelled_at_any_point_harms_no_one(
    turns: int, replicas: list[Flights[str]]
) -> None:
    source = Source(pause=10)
    leading = asyncio.create_task(read(replicas[0], source))
    await source.pausing.wait()
    leaver = asyncio.create_task(read(replicas[1], source))
    for _ in range(turns):
        await asyncio.sleep(0)
    leaver.cancel()
    # It follows before the leader ends: else it would rightly stream for itself.
    async with aclosing(replicas[1].join(KEY, source)) as other:
        assert [await anext(other) for _ in range(10)] == EVENTS[:10]
        source.go.set()
        assert [event async for event in other] == EVENTS[10:]
    assert await leading == EVENTS
    assert source.began == 1
    await asyncio.gather(leaver, return_exceptions=True)
