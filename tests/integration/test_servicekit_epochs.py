"""News of epochs over a real Valkey: what a replica knows, and when it knows nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from quintet_local.ports import free_port
from quintet_local.valkey import Valkey
from quintet_servicekit.cache import AwayError, CacheSettings, Remote, open_remote
from quintet_servicekit.consistency import LAST, Epoch
from quintet_servicekit.epochs import (
    LEASE_SECONDS,
    SKEW_SECONDS,
    EpochNews,
    EpochWatch,
    Place,
    open_watch,
)


def settings(url: str, namespace: str = "test") -> CacheSettings:
    return CacheSettings(redis_url=SecretStr(url), namespace=namespace)


@asynccontextmanager
async def opened(url: str, namespace: str = "test") -> AsyncIterator[Remote]:
    async with open_remote(settings(url, namespace)) as remote:
        assert remote is not None
        yield remote


@pytest.fixture
async def remote(redis_url: str) -> AsyncIterator[Remote]:
    async with opened(redis_url) as it:
        yield it


@pytest.fixture
def news(remote: Remote) -> EpochNews:
    return EpochNews(remote)


@pytest.fixture
async def watch(remote: Remote) -> AsyncIterator[EpochWatch]:
    async with open_watch(remote) as it:
        await until(lambda: it.mark() is not None)
        yield it


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def at(name: str) -> Place:
    return Place("default", name)


async def vouch(news: EpochNews, seconds: float = LEASE_SECONDS) -> None:
    await news.extend_trust(time.time() + seconds)


async def test_what_was_noted_and_vouched_for_is_known(news: EpochNews, watch: EpochWatch) -> None:
    watch.note("c", Epoch(1, 5), watch.mark())
    assert watch.known("c") is None  # nobody vouched for it
    await vouch(news)
    await until(lambda: watch.known("c") == Epoch(1, 5))
    assert watch.known("other") is None

    await news.announce_all([(at("c"), Epoch(1, 6)), (at("other"), Epoch(2, 1))])
    await until(lambda: watch.known("c") == Epoch(1, 6))
    assert watch.known("other") is None  # news alone are no proof
    await news.announce("c", Epoch(1, 4))
    await news.announce("c", Epoch(1, LAST))
    await until(lambda: watch.known("c") == Epoch(1, LAST))


async def test_news_that_come_between_reading_and_noting_count(
    news: EpochNews, watch: EpochWatch
) -> None:
    await vouch(news)
    mark = watch.mark()
    await news.announce("c", Epoch(1, 7))
    watch.note("probe", Epoch(9, 0), watch.mark())
    await news.announce("probe", Epoch(9, 1))
    await until(lambda: watch.known("probe") == Epoch(9, 1))
    watch.note("c", Epoch(1, 6), mark)
    assert watch.known("c") == Epoch(1, 7)


async def test_trust_ends_by_itself_and_never_lasts_longer_than_a_lease(
    news: EpochNews, watch: EpochWatch
) -> None:
    watch.note("c", Epoch(1, 5), watch.mark())
    began = time.monotonic()
    await vouch(news, 3600)  # as from a clock that is an hour ahead
    await until(lambda: watch.known("c") is not None)
    await until(lambda: watch.known("c") is None)
    lasted = time.monotonic() - began
    assert lasted == pytest.approx(LEASE_SECONDS - SKEW_SECONDS, abs=0.1)
    await vouch(news, 0.3)
    await until(lambda: watch.known("c") == Epoch(1, 5))
    await until(lambda: watch.known("c") is None)


async def test_a_reset_lets_all_be_forgotten(news: EpochNews, watch: EpochWatch) -> None:
    await vouch(news)
    mark = watch.mark()
    watch.note("c", Epoch(1, 5), mark)
    await until(lambda: watch.known("c") is not None)
    await news.reset()
    await until(lambda: watch.known("c") is None)
    await vouch(news)
    watch.note("c", Epoch(1, 5), mark)  # read before the reset
    await news.announce("c", Epoch(1, 5))
    watch.note("probe", Epoch(9, 0), watch.mark())
    await until(lambda: watch.known("probe") is not None)
    assert watch.known("c") is None


async def test_a_watch_that_alone_lost_its_connection_believes_nothing_of_before(
    remote: Remote, news: EpochNews, watch: EpochWatch
) -> None:
    """What is told meanwhile, to all others, is told to it by nobody."""
    watch.note("c", Epoch(1, 5), watch.mark())
    await vouch(news)
    await until(lambda: watch.known("c") == Epoch(1, 5))
    before = watch.mark()
    await remote.command("CLIENT", "KILL", "TYPE", "pubsub")
    await news.announce("c", Epoch(1, 6))
    await until(lambda: watch.mark() not in (None, before))
    watch.note("probe", Epoch(9, 0), watch.mark())
    await vouch(news)
    await until(lambda: watch.known("probe") is not None)
    assert watch.known("c") is None


async def test_without_room_what_was_told_is_not_mistaken_for_untold(
    remote: Remote, news: EpochNews
) -> None:
    told = asyncio.Event()
    watch = EpochWatch(lambda keys: told.set(), capacity=2)
    following = asyncio.create_task(watch.follow(remote))
    await until(lambda: watch.mark() is not None)
    await vouch(news)
    early = watch.mark()
    await news.announce_all(
        [(at("c"), Epoch(1, 7)), (at("x"), Epoch(2, 1)), (at("y"), Epoch(3, 1))]
    )
    await news.forget([])
    await told.wait()
    watch.note("y", Epoch(3, 0), early)
    assert watch.known("y") is None  # it could not tell any more which were dropped
    watch.note("c", Epoch(1, 6), early)
    assert watch.known("c") is None
    watch.note("c", Epoch(1, 7), watch.mark())
    assert watch.known("c") == Epoch(1, 7)
    following.cancel()
    await asyncio.wait({following})


async def test_keys_to_forget_reach_every_follower(remote: Remote, news: EpochNews) -> None:
    seen: list[Sequence[str]] = []
    async with open_watch(remote, seen.append) as first, open_watch(remote, seen.append) as second:
        await until(lambda: first.mark() is not None and second.mark() is not None)
        await news.forget(["0a", "0b"])
        await until(lambda: len(seen) == 2)
    assert seen == [["0a", "0b"]] * 2


async def test_another_deployment_on_the_same_server_hears_nothing(
    redis_url: str, news: EpochNews
) -> None:
    async with opened(redis_url, "other") as remote, open_watch(remote) as watch:
        await until(lambda: watch.mark() is not None)
        watch.note("c", Epoch(1, 5), watch.mark())
        await vouch(news)
        await EpochNews(remote).announce("c", Epoch(1, 6))
        await asyncio.sleep(0.05)
        assert watch.known("c") is None


async def test_what_nobody_understands_is_passed_over(
    remote: Remote, news: EpochNews, watch: EpochWatch
) -> None:
    mark = watch.mark()
    for message in ('{"kind": "later"}', '{"kind": "epoch", "name": 3}', "[]", "7"):
        await remote.command("PUBLISH", remote.key("epochs"), message)
    await vouch(news)
    watch.note("c", Epoch(1, 5), mark)
    await until(lambda: watch.known("c") is not None)
    assert watch.mark() is not None


async def test_without_a_redis_nothing_is_known() -> None:
    async with open_remote(CacheSettings()) as remote, open_watch(remote) as watch:
        assert watch.mark() is None
        watch.note("c", Epoch(1, 5), watch.mark())
        assert watch.known("c") is None


async def test_a_redis_that_was_away_is_followed_again_within_a_second_and_nothing_is_believed(
    tmp_path: Path,
) -> None:
    server = Valkey(tmp_path, port=free_port())
    child = await server.start()
    async with opened(server.url) as remote, open_watch(remote) as watch:
        news = EpochNews(remote)
        await until(lambda: watch.mark() is not None)
        mark = watch.mark()
        watch.note("c", Epoch(1, 5), mark)
        await vouch(news)
        await until(lambda: watch.known("c") is not None)

        await server.stop(child)
        await until(lambda: watch.known("c") is None, seconds=0.5)
        with pytest.raises(AwayError):
            await news.announce("c", Epoch(1, 6))
        await asyncio.sleep(0.5)

        child = await server.start()
        await until(lambda: watch.mark() is not None, seconds=1)
        await until(lambda: remote.available, seconds=1)
        await vouch(news)
        watch.note("c", Epoch(1, 5), mark)  # read before the loss
        await asyncio.sleep(0.05)
        assert watch.known("c") is None
        watch.note("c", Epoch(1, 6), watch.mark())
        assert watch.known("c") == Epoch(1, 6)
        await server.stop(child)


async def test_a_redis_that_hangs_is_noticed_and_trusted_no_longer_than_the_lease(
    tmp_path: Path,
) -> None:
    server = Valkey(tmp_path, port=free_port())
    child = await server.start()
    async with opened(server.url) as remote, open_watch(remote) as watch:
        news = EpochNews(remote)
        await until(lambda: watch.mark() is not None)
        watch.note("c", Epoch(1, 5), watch.mark())
        await vouch(news)
        await until(lambda: watch.known("c") is not None)
        os.kill(child.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(AwayError):
            await news.announce("c", Epoch(1, 6))
        assert time.monotonic() - began < 0.2
        await until(lambda: watch.known("c") is None, seconds=LEASE_SECONDS)
        await until(lambda: watch.mark() is None, seconds=4)
        os.kill(child.pid, signal.SIGCONT)
        await until(lambda: watch.mark() is not None, seconds=1)
        await server.stop(child)


async def test_asking_what_is_known_takes_microseconds(news: EpochNews, watch: EpochWatch) -> None:
    watch.note("c", Epoch(1, 5), watch.mark())
    await vouch(news)
    await until(lambda: watch.known("c") is not None)
    began = time.perf_counter()
    for _ in range(10_000):
        watch.known("c")
    assert (time.perf_counter() - began) / 10_000 < 20e-6
