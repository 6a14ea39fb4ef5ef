"""The servicer of caches, behind the kit's real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr
from support.gateway import reason
from support.grpc_service import serving

from quintet.cache.v1 import cache_service_pb2 as pb
from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from quintet_servicekit.cache import Cache, CacheSettings, Codec, Remote, open_remote
from quintet_servicekit.cache_service import SERVICE, register_cache_service
from quintet_servicekit.server import Application

SETTINGS = CacheSettings(memory_bytes=2**20)
TEXT = Codec(str.encode, bytes.decode)


def tiers(remote: Remote | None = None) -> tuple[Cache[str], Cache[str]]:
    return Cache("l2", TEXT, SETTINGS, remote), Cache("counts", TEXT, SETTINGS, remote)


def application(caches: tuple[Cache[str], ...], remote: Remote | None = None) -> Application:
    async def nothing() -> None: ...

    return Application(
        service="quintet.example.v1.ExampleService",
        register=lambda server: register_cache_service(server, caches, remote),
        warm_up=nothing,
        check=nothing,
        more_services=(SERVICE,),
    )


@pytest.fixture
async def caches() -> tuple[Cache[str], Cache[str]]:
    return tiers()


@pytest.fixture
async def channel(caches: tuple[Cache[str], Cache[str]]) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(application(caches)) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return CacheServiceStub(channel)


async def test_tiers_are_told_by_name_with_their_counts(
    stub: Any, caches: tuple[Cache[str], Cache[str]]
) -> None:
    l2, _ = caches
    l2.put("a" * 32, "x")
    await l2.get("a" * 32)
    await l2.get("b" * 32)
    stats = await stub.GetStats(pb.GetStatsRequest())
    assert [it.tier for it in stats.tiers] == ["counts", "l2"]
    told = stats.tiers[1]
    assert (told.hits, told.misses, told.entries, told.max_bytes) == (1, 1, 1, 2**20)
    assert told.bytes > 0
    assert not stats.redis_available


async def test_a_purge_empties_the_tiers_that_it_names_and_else_all(
    stub: Any, caches: tuple[Cache[str], Cache[str]]
) -> None:
    for cache in caches:
        cache.put("a" * 32, "x")
        cache.put("b" * 32, "y")
    assert (await stub.Purge(pb.PurgeRequest(tiers=["l2", "l2"]))).dropped == 2
    assert [it.stats().entries for it in caches] == [0, 2]
    assert (await stub.Purge(pb.PurgeRequest())).dropped == 2
    assert [it.stats().entries for it in caches] == [0, 0]


@pytest.mark.parametrize("names", [["l1"], [""], ["l2"] * 17])
async def test_a_tier_that_the_service_does_not_have_is_refused_and_nothing_purged(
    stub: Any, caches: tuple[Cache[str], Cache[str]], names: list[str]
) -> None:
    caches[0].put("a" * 32, "x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Purge(pb.PurgeRequest(tiers=["l2", *names]))
    assert reason(caught.value) == "INVALID_FIELD"
    assert caches[0].stats().entries == 1


async def test_without_redis_memory_is_emptied_and_the_purge_fails() -> None:
    settings = CacheSettings(redis_url=SecretStr("redis://127.0.0.1:1"))
    async with open_remote(settings) as remote:
        caches = tiers(remote)
        async with serving(application(caches, remote)) as channel:
            caches[0].put("a" * 32, "x")
            stub: Any = CacheServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Purge(pb.PurgeRequest())
            assert reason(caught.value) == "DEPENDENCY_UNAVAILABLE"
            assert caches[0].stats().entries == 0


async def test_it_is_listed_by_reflection_and_has_a_health(channel: grpc.aio.Channel) -> None:
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [reply] = [it async for it in reflection.ServerReflectionInfo(iter([asked]))]
    assert SERVICE in {it.name for it in reply.list_services_response.service}
    health: Any = health_pb2_grpc.HealthStub(channel)
    reply = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
