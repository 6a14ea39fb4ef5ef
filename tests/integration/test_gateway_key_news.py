"""A key that is revoked on one replica is refused by the others at once, by a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from quintet_gateway.access.keys import Keys
from quintet_gateway.access.models import KeyRecord
from quintet_gateway.access.ring import KeyRing
from quintet_gateway.access.settings import AccessSettings
from quintet_local.ports import free_port
from quintet_local.valkey import Valkey
from quintet_servicekit.api_key import ApiKey, new_key
from quintet_servicekit.cache import CacheSettings, open_remote
from quintet_servicekit.epochs import EpochNews, EpochWatch, open_watch
from quintet_servicekit.errors import ServiceError
from quintet_servicekit.identity import Identity, Scope

OPERATOR = Identity("default")


class Shelf:
    """Stands for the database, which both replicas have."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}

    async def add(self, key: KeyRecord, *, most: int) -> KeyRecord | None:
        self.records[key.id] = key
        return key

    async def find(self, key_id: str) -> KeyRecord | None:
        return self.records.get(key_id)

    async def page(self, tenant: str, *, after: str, size: int) -> Sequence[KeyRecord]:
        raise NotImplementedError

    async def end(self, tenant: str, key_id: str, when: datetime) -> KeyRecord | None:
        self.records[key_id] = replace(self.records[key_id], revoked=when)
        return self.records[key_id]


@dataclass
class Replica:
    ring: KeyRing
    keys: Keys
    watch: EpochWatch


@asynccontextmanager
async def replica(shelf: Shelf, url: str) -> AsyncIterator[Replica]:
    """The keys of a gateway that looks them up once an hour unless it is told something."""
    async with AsyncExitStack() as stack:
        redis = CacheSettings(redis_url=SecretStr(url), redis_timeout_seconds=2)
        remote = await stack.enter_async_context(open_remote(redis))
        assert remote is not None
        ring = KeyRing(shelf, AccessSettings(fresh_seconds=3600))
        watch = await stack.enter_async_context(
            open_watch(remote, on_key=ring.forget, on_gap=ring.doubt)
        )
        await follows(watch)
        yield Replica(ring, Keys(shelf, ring, EpochNews(remote), operators="default"), watch)


async def follows(watch: EpochWatch) -> None:
    async with asyncio.timeout(10):
        while watch.mark() is None:  # noqa: ASYNC110 - it comes about in another process
            await asyncio.sleep(0.01)


async def refused(ring: KeyRing, key: ApiKey) -> str:
    """Return why the key is refused, once it is."""
    async with asyncio.timeout(10):
        while True:
            try:
                await ring.identify(key)
            except ServiceError as error:
                return error.message
            await asyncio.sleep(0.01)


async def made(shelf: Shelf) -> ApiKey:
    key = new_key()
    now = datetime.now(UTC)
    await shelf.add(KeyRecord(key.id, "bees", "", Scope.READ, key.hash(), now), most=1)
    return key


async def test_a_revoked_key_and_one_whose_rotation_is_over_are_refused_by_others_at_once(
    redis_url: str,
) -> None:
    shelf = Shelf()
    revoked, rotated, other = [await made(shelf) for _ in range(3)]
    async with replica(shelf, redis_url) as here, replica(shelf, redis_url) as there:
        for each in (here, there):
            for key in (revoked, rotated, other):
                await each.ring.identify(key)
        await here.keys.revoke(OPERATOR, "bees", revoked.id)
        assert await refused(there.ring, revoked) == "the API key was revoked"
        await here.keys.rotate(OPERATOR, "bees", rotated.id, overlap=0.0)
        assert await refused(there.ring, rotated) == "the API key was revoked"
        assert (await there.ring.identify(other)).key == other.id


async def test_what_was_revoked_while_redis_was_away_is_refused_when_it_is_back(
    tmp_path: Path,
) -> None:
    shelf = Shelf()
    key = await made(shelf)
    server = Valkey(tmp_path, port=free_port())
    child = await server.start()
    try:
        async with replica(shelf, server.url) as here, replica(shelf, server.url) as there:
            await there.ring.identify(key)
            await server.stop(child)
            # Nobody can be told, which is no reason not to revoke it.
            await here.keys.revoke(OPERATOR, "bees", key.id)
            assert await refused(here.ring, key) == "the API key was revoked"
            assert (await there.ring.identify(key)).key == key.id
            child = await server.start()
            assert await refused(there.ring, key) == "the API key was revoked"
    finally:
        await server.stop(child)
