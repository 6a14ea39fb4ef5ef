"""Two replicas of the generator that share a Redis, before a model behind another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from support.grpc_service import serving
from support.misbehaving_server import (
    FINISH,
    HEAD,
    MisbehavingServer,
    delta,
    event,
    running_misbehaving_server,
)

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet_generator.app import open_application
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit.cache import CacheSettings

REQUEST = pb.GenerateRequest(question="When?", passages=[pb.Passage(text="In 1981.")])
WORDS = ["In ", "the ", "year ", "1981."]
DONE = event(FINISH) + event("[DONE]")


@pytest.fixture
async def model() -> AsyncIterator[MisbehavingServer]:
    """A server that takes a quarter of a second for an answer."""
    async with running_misbehaving_server() as server:
        slowly = (step for word in WORDS for step in (event(delta(word)), 0.06))
        server.script = [HEAD, *slowly, DONE]
        yield server


@asynccontextmanager
async def replica(model: MisbehavingServer, redis_url: str, **settings: Any) -> AsyncIterator[Any]:
    """A replica: stubs of its generator and of its caches."""
    # A second, since the tests share two processors with others.
    cache = CacheSettings(redis_url=SecretStr(redis_url), redis_timeout_seconds=1, **settings)
    it = GeneratorSettings(
        backends=("openai",),
        openai_base_url=f"http://127.0.0.1:{model.port}/v1",
        openai_model="m",
        cache=cache,
    )
    async with open_application(it) as application, serving(application) as channel:
        yield GeneratorServiceStub(channel), CacheServiceStub(channel)


async def read(stub: Any, request: pb.GenerateRequest = REQUEST) -> tuple[list[str], pb.Completed]:
    events = [it async for it in stub.GenerateStream(request)]
    pieces = [it.text_delta.text for it in events if it.HasField("text_delta")]
    return pieces, events[-1].completed


async def test_replicas_asked_at_once_run_the_model_once_and_both_stream(
    model: MisbehavingServer, redis_url: str
) -> None:
    async with replica(model, redis_url) as (one, _), replica(model, redis_url) as (two, _):
        asked = [read(stub) for stub in (one, two) for _ in range(20)]
        answers = await asyncio.gather(*asked)
    assert len(model.requests) == 1
    assert {"".join(pieces) for pieces, _ in answers} == {"".join(WORDS)}
    assert all(len(pieces) > 1 for pieces, _ in answers)
    outcomes = [completed.cache.outcome for _, completed in answers]
    assert outcomes.count(cache_pb.CACHE_OUTCOME_MISS) == 1
    assert outcomes.count(cache_pb.CACHE_OUTCOME_SHARED) == 39
    told = {(it.model, it.revision, it.prompt_revision, it.finish_reason) for _, it in answers}
    assert len(told) == 1


async def test_a_follower_has_its_whole_answer_when_the_leaders_caller_leaves(
    model: MisbehavingServer, redis_url: str
) -> None:
    async with replica(model, redis_url) as (one, _), replica(model, redis_url) as (two, _):
        leader = one.GenerateStream(REQUEST)
        await leader.read()
        follower = two.GenerateStream(REQUEST)
        told = [await follower.read()]
        leader.cancel()
        while not told[-1].HasField("completed"):
            told.append(await follower.read())
        assert "".join(it.text_delta.text for it in told) == "".join(WORDS)
        assert told[-1].completed.cache.outcome == cache_pb.CACHE_OUTCOME_MISS
        assert len(model.requests) == 2


async def test_an_answer_of_one_replica_is_found_by_the_other_in_one_piece(
    model: MisbehavingServer, redis_url: str
) -> None:
    async with replica(model, redis_url) as (one, _), replica(model, redis_url) as (two, caches):
        _, made = await read(one)
        pieces, kept = await read(two)
        again = await two.Generate(REQUEST)
        assert pieces == ["".join(WORDS)] == [again.text]
        assert kept.usage == made.usage == again.usage
        assert kept.cache.outcome == cache_pb.CACHE_OUTCOME_HIT
        assert kept.cache.store == cache_pb.CACHE_STORE_REDIS
        assert kept.cache.saved.ToMilliseconds() > 100
        assert again.cache.store == cache_pb.CACHE_STORE_MEMORY
        assert len(model.requests) == 1
        stats = await caches.GetStats(cache_pb.GetStatsRequest())
        assert stats.redis_available
        assert [it.tier for it in stats.tiers] == ["completions"]
        assert (await caches.Purge(cache_pb.PurgeRequest())).dropped == 1
        await read(two)
        assert len(model.requests) == 2


async def test_damaged_values_and_those_of_another_namespace_are_misses(
    model: MisbehavingServer, redis_url: str
) -> None:
    async with replica(model, redis_url) as (one, _):
        await read(one)
    with Redis.from_url(redis_url) as client:
        [name] = [key for key in client.keys("quintet:completions:*") if b":stream:" not in key]
        whole = client.get(name)
        assert isinstance(whole, bytes)
        for broken in (b"", whole[:40], whole[:-1] + bytes([whole[-1] ^ 1])):
            client.set(name, broken)
            async with replica(model, redis_url) as (two, _):
                pieces, completed = await read(two)
            assert completed.cache.outcome == cache_pb.CACHE_OUTCOME_MISS
            assert "".join(pieces) == "".join(WORDS) and len(pieces) > 1
    asked = len(model.requests)
    async with replica(model, redis_url, namespace="another") as (three, _):
        await read(three)
    assert len(model.requests) == asked + 1


async def test_without_redis_it_answers_and_keeps_in_memory(model: MisbehavingServer) -> None:
    async with replica(model, "redis://127.0.0.1:1") as (stub, caches):
        pieces, _ = await read(stub)
        assert "".join(pieces) == "".join(WORDS) and len(pieces) > 1
        assert (await read(stub))[0] == ["".join(WORDS)]
        assert not (await caches.GetStats(cache_pb.GetStatsRequest())).redis_available
