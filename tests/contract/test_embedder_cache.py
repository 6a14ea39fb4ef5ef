"""The embedder's kept vectors, over its RPCs, with the real model behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from pydantic import SecretStr
from support.gateway import reason
from support.grpc_service import serving

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet_embedder.app import open_application
from quintet_embedder.settings import Settings
from quintet_servicekit.cache import CacheSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY, PASSAGE = pb.INPUT_TYPE_QUERY, pb.INPUT_TYPE_PASSAGE
LONG = "a " * 400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    # A server that is not there: all works without it.
    cache = CacheSettings(redis_url=SecretStr("redis://127.0.0.1:1"))
    async with open_application(Settings(cache=cache)) as it, serving(it) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return EmbedderServiceStub(channel)


def request(*texts: str, **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=texts, **fields)


async def test_a_hit_is_byte_for_byte_the_computed_response(stub: Any) -> None:
    asked = request("The bread is in the oven.", LONG, truncation=pb.TRUNCATION_END)
    computed, kept = await stub.Embed(asked), await stub.Embed(asked)
    assert list(kept.embeddings) == list(computed.embeddings)
    assert [it.truncated for it in kept.embeddings] == [False, True]
    assert (kept.model, kept.revision, kept.dimension) == (
        computed.model,
        computed.revision,
        computed.dimension,
    )
    assert computed.cache.outcome == cache_pb.CACHE_OUTCOME_MISS
    assert (computed.cache.lookups, computed.cache.hits) == (2, 0)
    assert not computed.cache.HasField("age")
    assert kept.cache.outcome == cache_pb.CACHE_OUTCOME_HIT
    assert kept.cache.store == cache_pb.CACHE_STORE_MEMORY
    assert (kept.cache.lookups, kept.cache.hits) == (2, 2)
    assert kept.cache.HasField("age")
    assert kept.cache.saved.ToMicroseconds() > 0


@pytest.mark.parametrize("input_type", [QUERY, PASSAGE])
async def test_a_text_that_was_cut_is_refused_where_cutting_is_not_allowed(
    stub: Any, input_type: int
) -> None:
    texts = ("A short one.", LONG)
    await stub.Embed(request(*texts, input_type=input_type, truncation=pb.TRUNCATION_END))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(request(*texts, input_type=input_type))
    assert reason(caught.value) == "INPUT_TOO_LONG"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(request(LONG, input_type=input_type))
    assert reason(caught.value) == "INPUT_TOO_LONG"


async def test_queries_and_passages_are_tiers_that_can_be_purged(
    stub: Any, channel: grpc.aio.Channel
) -> None:
    caches: Any = CacheServiceStub(channel)
    for input_type in (QUERY, PASSAGE):
        await stub.Embed(request("One text.", input_type=input_type))
    stats = await caches.GetStats(cache_pb.GetStatsRequest())
    assert [it.tier for it in stats.tiers] == ["l2", "l2-passages"]
    assert all(it.entries and it.bytes for it in stats.tiers)
    # Redis is away, so the purge cannot be whole; memory is empty nevertheless.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caches.Purge(cache_pb.PurgeRequest(tiers=["l2"]))
    assert reason(caught.value) == "DEPENDENCY_UNAVAILABLE"
    stats = await caches.GetStats(cache_pb.GetStatsRequest())
    assert [bool(it.entries) for it in stats.tiers] == [False, True]
