"""The cache with a real Valkey behind it: shared, damaged, frozen, killed and back."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvloop
from chaos.proxy import FaultProxy, Mode
from pydantic import SecretStr
from redis import Redis
from structlog.testing import capture_logs
from support.cache_leader import KEY, TEXT, leader

from quintet_local.valkey import Valkey
from quintet_servicekit import telemetry
from quintet_servicekit.cache import (
    AwayError,
    Cache,
    CacheSettings,
    Found,
    Remote,
    key_of,
    open_remote,
)


def settings_of(url: str, **settings: float) -> CacheSettings:
    return CacheSettings.model_validate({"redis_url": SecretStr(url), **settings})


def cache_of(remote: Remote | None, url: str, **settings: float) -> Cache[str]:
    """A replica's cache of one tier."""
    return Cache("l1", TEXT, settings_of(url, **settings), remote, schema=3)


@pytest_asyncio.fixture
async def remote(redis_url: str) -> AsyncIterator[Remote]:
    # A loaded machine must not look like a Redis that is gone.
    async with open_remote(settings_of(redis_url, redis_timeout_seconds=1)) as opened:
        assert opened is not None
        yield opened


@pytest_asyncio.fixture
async def other_remote(redis_url: str) -> AsyncIterator[Remote]:
    """The same server as another replica reaches it."""
    # A loaded machine must not look like a Redis that is gone.
    async with open_remote(settings_of(redis_url, redis_timeout_seconds=1)) as opened:
        assert opened is not None
        yield opened


class Server:
    """A Valkey of the test's own, to be killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self._valkey = Valkey(folder)
        self._child: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return self._valkey.url

    async def start(self) -> None:
        self._child = await self._valkey.start()

    async def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        await self._child.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        os.kill(self._child.pid, number)

    async def stop(self) -> None:
        assert self._child is not None
        if self._child.returncode is None:
            self.signal(signal.SIGCONT)
            await self._valkey.stop(self._child)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path)
    await running.start()
    yield running
    await running.stop()


async def until_used(remote: Remote) -> float:
    """Return the seconds until Redis is used again."""
    began = time.monotonic()
    while not remote.available:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def until_gone(remote: Remote) -> None:
    while remote.available:
        with pytest.raises(AwayError):
            await remote.get("any")


async def test_a_value_of_one_replica_is_found_by_another_and_then_in_its_memory(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)
    one.put(KEY, "value", cost_seconds=2.5)
    await remote.writer.flush()
    first = await other.get(KEY)
    assert first is not None
    assert (first.value, first.store, first.saved_seconds) == ("value", "redis", 2.5)
    second = await other.get(KEY)
    assert second is not None
    assert second.store == "memory"


async def test_many_keys_cost_one_round_trip(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)
    keys = [key_of(n) for n in range(10)]
    one.put_many((key, key) for key in keys[:8])
    await remote.writer.flush()
    other.put(keys[0], "mine")
    await other_remote.writer.flush()
    with Redis.from_url(redis_url) as client:
        before = client.info("commandstats")
        found = await other.get_many([*keys, keys[1]])
        after = client.info("commandstats")
    values = [f and f.value for f in found]
    assert values == ["mine", *keys[1:8], None, None, keys[1]]
    assert after["cmdstat_mget"]["calls"] - before.get("cmdstat_mget", {"calls": 0})["calls"] == 1
    assert after.get("cmdstat_get") == before.get("cmdstat_get")


async def test_namespaces_tiers_and_schemas_see_nothing_of_each_other(
    remote: Remote, redis_url: str
) -> None:
    settings = settings_of(redis_url)
    Cache("l1", TEXT, settings, remote, schema=1).put(KEY, "value")
    await remote.writer.flush()
    assert await Cache("l1", TEXT, settings, remote, schema=1).get(KEY) is not None
    assert await Cache("l1", TEXT, settings, remote, schema=2).get(KEY) is None
    assert await Cache("l3", TEXT, settings, remote, schema=1).get(KEY) is None
    elsewhere = settings.model_copy(update={"namespace": "elsewhere"})
    async with open_remote(elsewhere) as another:
        assert await Cache("l1", TEXT, elsewhere, another, schema=1).get(KEY) is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[:-1],
    "changed": lambda raw: raw[:-1] + b"X",
    "empty": lambda raw: b"",
    "pickled": lambda raw: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin.",
    "of another schema": lambda raw: raw[:3] + b"\x09" + raw[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_value_is_a_counted_miss_and_is_computed_again(
    damage: str, remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)
    one.put(KEY, "value")
    await remote.writer.flush()
    with Redis.from_url(redis_url) as client:
        [name] = client.keys("*")
        client.set(name, DAMAGES[damage](client.get(name)))
    assert await other.get(KEY) is None
    assert (other.stats().errors, other.stats().misses) == (1, 1)

    async def load() -> str:
        return "again"

    assert (await other.get_or_load(KEY, load)).value == "again"
    await other_remote.writer.flush()
    one.clear()
    found = await one.get(KEY)
    assert found is not None
    assert found.value == "again"


async def test_a_value_of_a_wrong_type_is_a_miss(remote: Remote, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.rpush("quintet:l1:3:" + KEY, "an element of a list")
    assert await cache_of(remote, redis_url).get(KEY) is None
    assert remote.available


async def test_an_expired_value_is_gone_from_redis_too(remote: Remote, redis_url: str) -> None:
    cache = cache_of(remote, redis_url, ttl_seconds=0.05, stale_seconds=0.05)
    cache.put(KEY, "value")
    await remote.writer.flush()
    cache.clear()
    await asyncio.sleep(0.06)
    found = await cache.get(KEY, allow_stale=True)
    assert found is not None
    assert found.stale
    await asyncio.sleep(0.06)
    assert await cache.get(KEY, allow_stale=True) is None
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


async def test_two_replicas_asked_a_thousand_times_compute_once(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    caches = [cache_of(remote, redis_url), cache_of(other_remote, redis_url)]
    computed = 0

    async def load() -> str:
        nonlocal computed
        computed += 1
        await asyncio.sleep(0.2)
        return "value"

    found = await asyncio.gather(
        *(cache.get_or_load(KEY, load) for cache in caches for _ in range(500))
    )
    assert computed == 1
    assert {f.value for f in found} == {"value"}
    assert sum(f.shared for f in found) == 999
    await asyncio.gather(remote.writer.flush(), other_remote.writer.flush())
    with Redis.from_url(redis_url) as client:
        assert [name for name in client.keys("*") if name.endswith(b":lease")] == []


async def test_replicas_that_race_never_compute_twice(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    caches = [cache_of(remote, redis_url), cache_of(other_remote, redis_url)]
    computed: list[str] = []

    async def ask(cache: Cache[str], key: str, delay: float) -> None:
        async def load() -> str:
            computed.append(key)
            return key

        await asyncio.sleep(delay)
        assert (await cache.get_or_load(key, load)).value == key

    keys = [key_of(n) for n in range(100)]
    await asyncio.gather(
        *(
            ask(cache, key, n * 1e-5 * k)
            for n, key in enumerate(keys)
            for k, cache in enumerate(caches)
        )
    )
    assert sorted(computed) == sorted(keys)


async def test_while_a_replica_computes_its_lease_lasts_however_long_it_takes(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one = cache_of(remote, redis_url, lease_seconds=0.1)
    other = cache_of(other_remote, redis_url, lease_seconds=0.1)

    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "slow"

    found = await asyncio.gather(one.get_or_load(KEY, slow), other.get_or_load(KEY, slow))
    assert sum(f.shared for f in found) == 1


async def test_when_the_process_that_computes_is_killed_another_takes_over(
    remote: Remote, redis_url: str
) -> None:
    cache = cache_of(remote, redis_url, lease_seconds=0.5)

    async def load() -> str:
        return "ours"

    async with leader("value", redis_url, lease_seconds=0.5):
        waiting = asyncio.create_task(cache.get_or_load(KEY, load))
        await asyncio.sleep(0.7)
        assert not waiting.done()
    began = time.monotonic()
    assert (await waiting).value == "ours"
    assert time.monotonic() - began < 1


async def test_a_computation_that_fails_hands_the_lease_on_at_once(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)

    async def fail() -> str:
        await asyncio.sleep(0.05)
        raise RuntimeError("broken on purpose")

    async def load() -> str:
        return "value"

    failing = asyncio.create_task(one.get_or_load(KEY, fail))
    await asyncio.sleep(0.02)
    began = time.monotonic()
    assert (await other.get_or_load(KEY, load)).value == "value"
    assert time.monotonic() - began < 0.3
    with pytest.raises(RuntimeError):
        await failing


async def test_a_value_from_redis_that_is_not_accepted_is_computed_and_replaced(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)
    one.put(KEY, "old")
    await remote.writer.flush()

    def accept(found: Found[str]) -> bool:
        return found.value == "new"

    async def load() -> str:
        return "new"

    assert (await other.get_or_load(KEY, load, accept=accept)).value == "new"
    await other_remote.writer.flush()
    again = await one.get(KEY, accept=accept)
    assert again is not None
    assert again.store == "redis"


async def test_what_is_deleted_is_gone_even_if_its_writing_was_still_pending(
    remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one, other = cache_of(remote, redis_url), cache_of(other_remote, redis_url)
    one.put(KEY, "value")
    assert await one.delete([KEY])
    assert await one.get(KEY) is None
    assert await other.get(KEY) is None


async def test_more_than_may_wait_to_be_written_is_dropped_and_counted(
    server: Server,
) -> None:
    settings = settings_of(server.url, pending_bytes=10_000)
    async with open_remote(settings) as remote:
        cache = Cache("l1", TEXT, settings, remote)
        for n in range(20):
            cache.put(key_of(n), "x" * 1000)
        assert 0 < cache.stats().errors < 20
        assert cache.peek(key_of(19)) is not None


async def test_with_redis_killed_everything_works_and_it_is_used_within_a_second_of_its_return(
    server: Server,
) -> None:
    settings = settings_of(server.url)
    async with open_remote(settings) as remote:
        assert remote is not None
        cache = cache_of(remote, server.url)
        cache.put(KEY, "value")
        await remote.writer.flush()
        await server.kill()
        await until_gone(remote)
        found = await cache.get(KEY)
        assert found is not None
        assert found.store == "memory"
        cache.clear()

        async def load() -> str:
            return "computed"

        assert (await cache.get_or_load(KEY, load)).value == "computed"
        assert not cache.stats().redis_available
        assert not await cache.delete([KEY])
        await server.start()
        assert await until_used(remote) < 1
        assert await cache.get(KEY) is None  # it came back empty
        assert (await cache.get_or_load(KEY, load)).store is None
        await remote.writer.flush()
        cache.clear()
        found = await cache.get(KEY)
        assert found is not None
        assert found.store == "redis"


async def test_an_idle_connection_that_a_restart_cut_costs_no_caller_its_answer(
    server: Server,
) -> None:
    async with open_remote(settings_of(server.url)) as remote:
        assert remote is not None
        await asyncio.gather(*(remote.get(key_of(n)) for n in range(8)))
        await server.kill()
        await server.start()
        for n in range(8):
            assert await remote.get(key_of(n)) is None
        assert remote.available


async def test_a_frozen_redis_costs_a_few_timeouts_and_then_nothing(server: Server) -> None:
    async with open_remote(settings_of(server.url)) as remote:
        assert remote is not None
        cache = cache_of(remote, server.url)
        await cache.get(KEY)
        server.signal(signal.SIGSTOP)
        began = time.perf_counter()
        for _ in range(3):
            assert await cache.get(KEY) is None
        assert time.perf_counter() - began < 3 * 0.1
        assert not remote.available
        seconds = []
        for _ in range(200):
            began = time.perf_counter()
            await cache.get(KEY)
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)  # over several probes
        assert statistics.median(seconds) < 0.0005
        # None of them waited for a probe, which takes the whole timeout of 50 ms.
        assert max(seconds) < 0.03
        server.signal(signal.SIGCONT)
        assert await until_used(remote) < 1
        cache.put(KEY, "value")
        assert await remote.writer.flush()


async def test_a_refused_password_is_one_logged_error_and_no_spin(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quintet_servicekit.cache.remote.REFUSED_SECONDS", 0.1)
    telemetry.logger.cache_clear()
    host = server.url.rsplit("@", 1)[1]
    with capture_logs() as logs:
        async with open_remote(settings_of(f"redis://:wrong@{host}")) as remote:
            assert remote is not None
            cache = cache_of(remote, server.url)
            for _ in range(50):
                assert await cache.get(KEY) is None
            assert not remote.available
            await asyncio.sleep(0.5)
    telemetry.logger.cache_clear()
    errors = [log["event"] for log in logs if log["log_level"] == "error"]
    assert len(errors) == 1
    assert "password" in errors[0]
    assert len(logs) == 2  # and the breaker's opening
    with Redis.from_url(server.url) as client:
        failures = client.info("commandstats")["cmdstat_hello"]["failed_calls"]
    assert 2 <= failures <= 8


@pytest.mark.parametrize("turns", range(40))
async def test_a_caller_cancelled_at_any_point_leaves_no_wrong_reply_and_no_lost_connection(
    turns: int, redis_url: str
) -> None:
    settings = settings_of(redis_url, redis_connections=1, redis_timeout_seconds=2)
    async with open_remote(settings) as remote:
        assert remote is not None
        await remote.pipeline([("SET", remote.key(f"{n}"), f"{n}") for n in range(3)])
        if turns % 2:  # the handshake can be cut too
            await remote._pool.disconnect()
        caller = asyncio.create_task(remote.mget(["0", "1"]))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert await remote.get("2") == b"2"
        assert await remote.mget(["1", "0"]) == [b"1", b"0"]
        assert not remote._pool._in_use_connections


async def test_a_storm_of_cancellations_leaves_every_reply_with_its_caller(redis_url: str) -> None:
    settings = settings_of(redis_url, redis_connections=4, redis_timeout_seconds=2)
    async with open_remote(settings) as remote:
        assert remote is not None
        await remote.pipeline([("SET", remote.key(f"{n}"), f"{n}") for n in range(100)])

        async def ask(n: int) -> None:
            reply = await remote.get(f"{n % 100}")
            assert reply == b"%d" % (n % 100)

        for delay in (0, 0.0001, 0.0003, 0.001, 0.003):
            callers = [asyncio.create_task(ask(n)) for n in range(60)]
            await asyncio.sleep(delay)
            for caller in callers[::2]:
                caller.cancel()
            results = await asyncio.gather(*callers, return_exceptions=True)
            assert all(r is None for r in results[1::2])
        assert not remote._pool._in_use_connections
        assert remote.available


@pytest.mark.parametrize("turns", range(0, 60, 2))
async def test_a_caller_cancelled_at_any_point_of_computing_delays_the_next_by_a_lease_at_most(
    turns: int, remote: Remote, other_remote: Remote, redis_url: str
) -> None:
    one = cache_of(remote, redis_url, lease_seconds=0.2)
    other = cache_of(other_remote, redis_url, lease_seconds=0.2)

    async def load() -> str:
        await asyncio.sleep(0.001)
        return "value"

    caller = asyncio.create_task(one.get_or_load(KEY, load))
    for _ in range(turns):
        await asyncio.sleep(0)
    caller.cancel()
    found = await asyncio.gather(
        *(cache.get_or_load(KEY, load) for cache in (one, other)), return_exceptions=True
    )
    assert [getattr(f, "value", f) for f in found] == ["value", "value"]
    await asyncio.gather(caller, return_exceptions=True)
    await remote.writer.flush()
    await one.aclose()
    assert not remote._pool._in_use_connections


def test_connections_that_were_reset_while_idle_are_a_redis_that_is_away(redis_url: str) -> None:
    async def main() -> None:
        proxy = FaultProxy(urlsplit(redis_url).port or 0)
        await proxy.start()
        url = redis_url.replace(str(proxy.leads_to), str(proxy.port))
        async with open_remote(settings_of(url, redis_timeout_seconds=1)) as remote:
            assert remote is not None
            assert await remote.get("k") is None
            await proxy.be(Mode.REFUSE)
            with pytest.raises(AwayError):
                await remote.get("k")
        await proxy.close()

    # The services' own event loop: others say nothing when a reset connection is written to.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
