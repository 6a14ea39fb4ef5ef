"""The cache of search results: never served past a write that its reader may expect."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from redis import Redis
from support.grpc_service import serving
from support.retriever import create, document, packed, settings_for, upsert

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.cache.v1 import cache_service_pb2_grpc as cache_grpc
from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_local.ports import free_port
from quintet_local.valkey import Valkey
from quintet_retriever.app import open_application
from quintet_servicekit.cache import CacheSettings

if TYPE_CHECKING:
    from support.retriever import Stub

HIT = cache_pb.CACHE_OUTCOME_HIT
MISS = cache_pb.CACHE_OUTCOME_MISS
SHARED = cache_pb.CACHE_OUTCOME_SHARED
BYPASS = cache_pb.CACHE_OUTCOME_BYPASS
MEMORY = cache_pb.CACHE_STORE_MEMORY
REDIS = cache_pb.CACHE_STORE_REDIS


class Replica:
    """One retriever."""

    def __init__(self, stub: Stub, caches: cache_grpc.CacheServiceAsyncStub) -> None:
        self.stub = stub
        self.caches = caches

    async def search(self, collection: str = "c", **fields: Any) -> pb.SearchResponse:
        fields = {"vector": packed([1, 0]), "text": "text"} | fields
        return await self.stub.Search(pb.SearchRequest(collection=collection, **fields))

    async def hit(self, **fields: Any) -> pb.SearchResponse:
        """Search until the answer is a hit: the relay needs a moment to vouch for it."""
        async with asyncio.timeout(5):
            while True:
                response = await self.search(**fields)
                if response.cache.outcome == HIT:
                    return response
                await asyncio.sleep(0.01)

    async def write(self, identifier: str = "d", text: str = "text") -> str:
        request = pb.UpsertDocumentsRequest(
            collection="c", documents=[document(identifier, [text])]
        )
        return (await self.stub.UpsertDocuments(request)).consistency_token


@asynccontextmanager
async def replica_on(database_url: str, redis_url: str) -> AsyncIterator[Replica]:
    settings = settings_for(database_url, cache=CacheSettings(redis_url=SecretStr(redis_url)))
    async with open_application(settings) as application, serving(application, settings) as channel:
        yield Replica(pb_grpc.RetrieverServiceStub(channel), cache_grpc.CacheServiceStub(channel))


@pytest.fixture
async def replica(database_url: str, redis_url: str) -> AsyncIterator[Replica]:
    async with replica_on(database_url, redis_url) as it:
        await create(it.stub, "c")
        await it.write()
        yield it


def at_least(token: str) -> pb.Consistency:
    return pb.Consistency(at_least_as_fresh=token)


async def test_the_same_search_is_answered_from_memory_and_says_so(replica: Replica) -> None:
    computed = await replica.search()
    assert computed.cache.tier == "l3" and computed.cache.outcome == MISS
    hit = await replica.hit()
    assert (hit.cache.store, hit.cache.hits, hit.cache.lookups) == (MEMORY, 1, 1)
    assert hit.cache.epoch == 1 and hit.cache.HasField("age")
    assert hit.cache.saved.ToNanoseconds() > 0
    for name in ("hits", "mode", "state", "consistency_token", "unchanged"):
        assert getattr(hit, name) == getattr(computed, name)


async def test_another_replica_is_answered_from_redis(
    replica: Replica, database_url: str, redis_url: str
) -> None:
    first = await replica.hit()
    async with replica_on(database_url, redis_url) as other:
        # Its first look-up reads the epoch; of another question, so that this one's result
        # is not in its memory.
        await other.hit(text="other")
        second = await other.search()
        assert (second.cache.outcome, second.cache.store) == (HIT, REDIS)
        assert second.hits == first.hits and second.consistency_token == first.consistency_token
        assert (await other.search()).cache.store == MEMORY


async def test_what_differs_in_anything_is_another_search(replica: Replica) -> None:
    await replica.hit()
    only = pb.Filter(exists=pb.Filter.Exists(key="a"))
    for fields in (
        {"text": "texts"},
        {"vector": packed([1, 0.1])},
        {"k": 9},
        {"filter": only},
        {"mode": pb.SEARCH_MODE_DENSE},
    ):
        assert (await replica.search(**fields)).cache.outcome == MISS
    await create(replica.stub, "e")
    assert (await replica.search("e")).cache.outcome == MISS


async def test_a_write_is_seen_by_the_next_search_and_by_its_token_at_once(
    replica: Replica, database_url: str, redis_url: str
) -> None:
    async with replica_on(database_url, redis_url) as other:
        for i in range(30):
            await replica.hit()
            await other.hit()
            token = await replica.write(text=f"text {i}")
            for reader in (other, replica):
                response = await reader.search(consistency=at_least(token))
                assert response.hits[0].text == f"text {i}"
        deletion = pb.DeleteDocumentRequest(collection="c", id="d")
        token = (await replica.stub.DeleteDocument(deletion)).consistency_token
        assert not (await other.search(consistency=at_least(token))).hits
        assert not (await replica.search(consistency=at_least(token))).hits


async def test_the_stronger_modes_ask_the_database(replica: Replica) -> None:
    hit = await replica.hit()
    old = await replica.search(consistency=at_least(hit.consistency_token))
    assert old.cache.outcome == HIT
    fully = await replica.search(consistency=pb.Consistency(fully_consistent=True))
    assert fully.cache.outcome == BYPASS and fully.hits == hit.hits
    compared = await replica.search(known_state=hit.state)
    assert compared.cache.outcome == BYPASS and compared.unchanged


async def test_a_collection_made_anew_has_nothing_of_the_old_one(replica: Replica) -> None:
    await replica.hit()
    await replica.stub.DeleteCollection(pb.DeleteCollectionRequest(name="c"))
    made = await replica.stub.CreateCollection(
        pb.CreateCollectionRequest(
            name="c", embedding_model="m", embedding_revision="r1", dimension=2
        )
    )
    assert not (await replica.search(consistency=at_least(made.consistency_token))).hits
    assert not (await replica.hit()).hits


async def test_of_many_at_once_one_searches(replica: Replica) -> None:
    await replica.hit(text="another")
    found = await asyncio.gather(*[replica.search(k=7) for _ in range(50)])
    outcomes = [response.cache.outcome for response in found]
    assert outcomes.count(MISS) == 1
    assert set(outcomes) <= {MISS, SHARED, HIT} and SHARED in outcomes
    assert all(response.hits == found[0].hits for response in found)


async def test_an_invalidated_collection_is_searched_anew(replica: Replica) -> None:
    await replica.hit()
    request = pb.InvalidateCollectionRequest(collection="c")
    token = (await replica.stub.InvalidateCollection(request)).consistency_token
    response = await replica.search(consistency=at_least(token))
    assert response.cache.outcome == MISS and response.consistency_token == token


async def test_without_redis_nothing_is_cached(database_url: str) -> None:
    async with replica_on(database_url, "") as replica:
        await create(replica.stub, "c")
        await replica.write()
        for _ in range(3):
            assert (await replica.search()).cache.outcome == MISS
        stats = await replica.caches.GetStats(cache_pb.GetStatsRequest())
        assert stats.tiers[0].entries == 0 and not stats.redis_available


async def test_operators_see_and_empty_it(replica: Replica) -> None:
    await replica.hit()
    stats = await replica.caches.GetStats(cache_pb.GetStatsRequest())
    (tier,) = stats.tiers
    assert stats.redis_available and tier.tier == "l3"
    assert tier.hits >= 1 and tier.entries >= 1 and tier.bytes > 0
    assert (await replica.caches.Purge(cache_pb.PurgeRequest())).dropped >= 1
    assert (await replica.search()).cache.outcome == MISS


async def test_a_damaged_result_is_a_miss(
    replica: Replica, database_url: str, redis_url: str
) -> None:
    await replica.hit()
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter("quintet:l3:*"):
            client.set(key, b"rubbish" * 20)
    async with replica_on(database_url, redis_url) as other:
        await other.hit(text="other")
        assert (await other.search()).cache.outcome == MISS


async def test_a_reader_with_a_token_never_sees_the_past_whatever_becomes_of_redis(
    database_url: str, tmp_path: Path
) -> None:
    server = Valkey(tmp_path, port=free_port())
    child = await server.start()
    chance = random.Random(3)
    reads = hits = 0
    latest = {f"d{i}": (0, "") for i in range(5)}
    ends = time.monotonic() + 8
    async with (
        replica_on(database_url, server.url) as one,
        replica_on(database_url, server.url) as two,
    ):
        await create(one.stub, "c")
        await upsert(one.stub, "c", *[document(it, ["text 0"]) for it in latest])

        async def write(replica: Replica, mine: list[str]) -> None:
            while time.monotonic() < ends:
                it = chance.choice(mine)
                number = latest[it][0] + 1
                token = await replica.write(it, f"text {number}")
                latest[it] = (number, token)
                await asyncio.sleep(chance.uniform(0, 0.2))

        async def read(replica: Replica) -> None:
            nonlocal reads, hits
            while time.monotonic() < ends:
                it, (number, token) = chance.choice(list(latest.items()))
                if not token:
                    await asyncio.sleep(0.01)
                    continue
                response = await replica.search(consistency=at_least(token))
                texts = {hit.document_id: hit.text for hit in response.hits}
                assert int(texts[it].split()[1]) >= number
                reads += 1
                hits += response.cache.outcome == HIT

        async def disturb() -> None:
            nonlocal child
            while time.monotonic() < ends:
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                if chance.random() < 0.5:
                    os.kill(child.pid, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0.02, 1))
                    os.kill(child.pid, signal.SIGCONT)
                else:
                    os.kill(child.pid, signal.SIGKILL)
                    await child.wait()
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    child = await server.start()

        async with asyncio.TaskGroup() as group:
            group.create_task(write(one, ["d0", "d1"]))
            group.create_task(write(two, ["d2", "d3", "d4"]))
            for replica in (one, two):
                group.create_task(read(replica))
            group.create_task(disturb())
    await server.stop(child)
    assert reads > 300 and hits > 30
