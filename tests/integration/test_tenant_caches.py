"""What is kept for one tenant is not there for another: memory, Redis, flights, epochs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import pytest
import pytest_asyncio
from pydantic import SecretStr

from quintet_gateway.question_guard import signature
from quintet_gateway.semantic_index import SemanticIndex
from quintet_servicekit.cache import (
    Cache,
    CacheSettings,
    Codec,
    Flights,
    Remote,
    key_of,
    open_remote,
)
from quintet_servicekit.consistency import Epoch, decode_token, encode_token
from quintet_servicekit.epochs import EpochNews, EpochWatch, open_watch
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as, current
from quintet_servicekit.tenant_map import TenantMap

TEXT: Codec[str] = Codec(str.encode, bytes.decode)
ANTS, BEES = Identity("ants"), Identity("bees")
RAW = "a key that nobody derived"


def settings_of(url: str) -> CacheSettings:
    return CacheSettings(redis_url=SecretStr(url), namespace="test", redis_timeout_seconds=1)


@pytest_asyncio.fixture
async def remote(redis_url: str) -> AsyncIterator[Remote]:
    async with open_remote(settings_of(redis_url)) as opened:
        assert opened is not None
        yield opened


@pytest.fixture
def replicas(remote: Remote, redis_url: str) -> tuple[Cache[str], Cache[str]]:
    """Two replicas' caches of one tier."""
    one, two = (Cache("l1", TEXT, settings_of(redis_url), remote) for _ in range(2))
    return one, two


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def test_a_value_is_found_by_its_tenant_alone_in_memory_and_in_redis(
    replicas: tuple[Cache[str], Cache[str]], remote: Remote
) -> None:
    with acting_as(ANTS):
        replicas[0].put(RAW, "theirs")
        assert await remote.writer.flush()
    with acting_as(BEES):
        for cache in replicas:
            assert cache.peek(RAW) is None
            assert await cache.get(RAW) is None
            assert await cache.get_many([RAW, RAW]) == [None, None]
        loaded = await replicas[0].get_or_load(RAW, lambda: asyncio.sleep(0, "mine"))
        assert loaded.value == "mine"
    with acting_as(ANTS):
        found = [await cache.get(RAW) for cache in replicas]
        assert [it and (it.value, it.store) for it in found] == [
            ("theirs", "memory"),
            ("theirs", "redis"),
        ]


async def test_purging_and_counting_are_of_ones_own(
    replicas: tuple[Cache[str], Cache[str]], remote: Remote
) -> None:
    cache, other = replicas
    for identity, amount in ((ANTS, 3), (BEES, 2)):
        with acting_as(identity):
            for number in range(amount):
                cache.put(f"key {number}", identity.tenant)
            assert await cache.get("none") is None
    assert await remote.writer.flush()
    with acting_as(BEES):
        stats = cache.stats()
        assert (stats.entries, stats.hits, stats.misses) == (2, 0, 1)
        assert await cache.purge() == 2
        assert await cache.purge() == 0
        await cache.delete(["key 0"])
        cache.discard(["key 1"])
    with acting_as(Identity("nobody")):
        stats = cache.stats()
        assert (stats.entries, stats.bytes, stats.misses) == (0, 0, 0)
        assert await cache.purge() == 0
    with acting_as(ANTS):
        assert cache.stats().entries == 3
        assert [it and it.value for it in await other.get_many(["key 0", "key 1", "key 2"])] == [
            "ants"
        ] * 3


async def test_a_computation_is_shared_by_callers_of_one_tenant_and_is_made_for_it(
    replicas: tuple[Cache[str], Cache[str]],
) -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    async def load() -> str:
        begun.append(current().tenant)
        await go_on.wait()
        return current().tenant

    async def ask(identity: Identity) -> str:
        with acting_as(identity):
            return (await replicas[0].get_or_load(RAW, load)).value

    asking = [asyncio.create_task(ask(it)) for it in (ANTS, BEES, ANTS, BEES)]
    await until(lambda: len(begun) == 2)
    go_on.set()
    assert await asyncio.gather(*asking) == ["ants", "bees", "ants", "bees"]
    assert sorted(begun) == ["ants", "bees"]


async def test_a_stale_value_is_renewed_for_whom_it_is() -> None:
    cache = Cache("l1", TEXT, CacheSettings(ttl_seconds=0.001, ttl_jitter=0, stale_seconds=60))
    renewed: list[str] = []

    async def load() -> str:
        await asyncio.sleep(0.002)
        renewed.append(current().tenant)
        return current().tenant

    for identity in (ANTS, BEES):
        with acting_as(identity):
            cache.put(RAW, "old")
    await asyncio.sleep(0.005)
    for identity in (ANTS, BEES):
        with acting_as(identity):
            assert (await cache.get_or_load(RAW, load)).value == "old"
    await until(lambda: len(renewed) == 2)
    assert sorted(renewed) == ["ants", "bees"]
    await cache.aclose()


@pytest.mark.parametrize("across_replicas", [True, False])
async def test_a_stream_in_flight_is_joined_by_its_tenant_alone(
    remote: Remote, redis_url: str, across_replicas: bool
) -> None:
    replicas = [Flights("l1", TEXT, settings_of(redis_url), remote) for _ in range(2)]
    go_on = asyncio.Event()
    begun: list[str] = []

    async def start() -> AsyncGenerator[str]:
        begun.append(current().tenant)
        yield f"{current().tenant} begins"
        await go_on.wait()
        yield f"{current().tenant} ends"

    async def ask(identity: Identity, flights: Flights[str]) -> list[str]:
        with acting_as(identity):
            joined = flights.join(RAW, start, across_replicas=across_replicas)
            async with aclosing(joined) as events:
                return [event async for event in events]

    asking = [
        asyncio.create_task(ask(identity, flights))
        for identity in (ANTS, BEES)
        for flights in (replicas[0], replicas[0], replicas[1])
    ]
    await until(lambda: set(begun) == {"ants", "bees"})
    go_on.set()
    found = await asyncio.gather(*asking)
    assert found == [["ants begins", "ants ends"]] * 3 + [["bees begins", "bees ends"]] * 3
    assert len(begun) == (2 if across_replicas else 4)
    for flights in replicas:
        await flights.aclose()


async def test_epochs_are_known_by_tenant_and_name(remote: Remote) -> None:
    dropped: list[tuple[str, list[str]]] = []

    def forget(keys: object) -> None:
        dropped.append((current().tenant, list(keys)))  # type: ignore[call-overload]

    async with open_watch(remote, forget) as watch:
        news = EpochNews(remote)
        await until(lambda: watch.mark() is not None)

        def known(identity: Identity, watch: EpochWatch = watch) -> Epoch | None:
            with acting_as(identity):
                return watch.known("notes")

        anybody = Identity("default")
        for number, identity in enumerate((anybody, ANTS, BEES)):
            with acting_as(identity):
                watch.note("notes", Epoch(number + 1, 5), watch.mark())
        while known(BEES) is None:
            await news.extend_trust(asyncio.get_running_loop().time() + 2e9)
            await asyncio.sleep(0.005)
        with acting_as(BEES):
            await news.announce("notes", Epoch(3, 6))
            await news.forget(["k"])
        await until(lambda: bool(dropped))
        assert dropped == [("bees", ["k"])]
        assert [known(it) for it in (anybody, ANTS, BEES)] == [
            Epoch(1, 5),
            Epoch(2, 5),
            Epoch(3, 6),
        ]
        await news.announce("notes", Epoch(1, 7))
        await until(lambda: known(anybody) == Epoch(1, 7))
        assert known(ANTS) == Epoch(2, 5)


def test_a_token_of_another_tenant_is_refused_as_a_made_up_one_is() -> None:
    epoch = Epoch(7, 3)
    tokens = {}
    for tenant in ("default", "ants", "bees"):
        with acting_as(Identity(tenant)):
            tokens[tenant] = encode_token("notes", epoch)
            assert decode_token("notes", tokens[tenant]) == epoch
    assert len(set(tokens.values())) == 3
    refused = []
    with acting_as(BEES):
        for token in (tokens["ants"], tokens["default"], "A" * len(tokens["ants"]), "x"):
            with pytest.raises(ServiceError) as caught:
                decode_token("notes", token)
            refused.append((caught.value.reason, caught.value.message, caught.value.violations))
    assert refused == refused[:1] * 4 and refused[0][0] is Reason.INVALID_FIELD


def test_keys_and_what_is_remembered_differ_between_tenants() -> None:
    keys = set()
    remembered: TenantMap[int] = TenantMap(3)
    index = SemanticIndex(max_questions=10, max_scope_questions=10, threshold=0.5)
    vector = b"\0\0\x80?" * 4
    asked = "How long do ants live in winter?"
    for identity in (ANTS, BEES):
        with acting_as(identity):
            keys.add(key_of("part", 1))
            assert remembered.get("notes") is None
            remembered.put("notes", 1)
            scope = key_of("scope").encode()
            assert index.nearest(scope, vector, signature(asked)) is None
            index.add(scope, key_of("question").encode(), vector, asked)
            assert index.nearest(scope, vector, signature(asked)) is not None
    assert len(keys) == 2
    with acting_as(ANTS):
        remembered.forget("notes")
    with acting_as(BEES):
        assert remembered.get("notes") == 1
        for number in range(5):
            remembered.put(str(number), number)
        assert len(remembered) == 3
