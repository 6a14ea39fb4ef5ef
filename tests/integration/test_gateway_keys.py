"""API keys in a real PostgreSQL: how many of them there can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest_asyncio
from pydantic import SecretStr
from support.postgres import service_url

from quintet_gateway.access.models import KeyRecord
from quintet_gateway.access.store import KeyStore
from quintet_gateway.database import open_database
from quintet_gateway.settings import Settings
from quintet_servicekit.api_key import new_key
from quintet_servicekit.identity import Scope


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncIterator[KeyStore]:
    settings = Settings(
        database_url=SecretStr(service_url(database_url)),
        owner_database_url=SecretStr(database_url),
    )
    async with open_database(settings) as database:
        assert database is not None
        await database.migrated.wait()
        yield KeyStore(database)


def record(tenant: str) -> KeyRecord:
    key = new_key()
    return KeyRecord(key.id, tenant, "", Scope.READ, key.hash(), datetime.now(UTC))


async def test_of_keys_that_are_made_at_once_no_more_are_made_than_may_be(store: KeyStore) -> None:
    made = await asyncio.gather(*(store.add(record("bees"), most=5) for _ in range(20)))
    assert sum(it is not None for it in made) == 5
    assert await store.add(record("ants"), most=5)


async def test_who_makes_and_revokes_keys_without_end_leaves_so_many_and_no_more(
    store: KeyStore,
) -> None:
    kept = await store.add(record("bees"), most=5)
    other = await store.add(record("ants"), most=5)
    assert kept is not None
    assert other is not None
    now = datetime.now(UTC)
    await store.end("ants", other.id, now - timedelta(days=1))
    ended = []
    for seconds in range(9, 0, -1):
        made = await store.add(record("bees"), most=5)
        assert made is not None
        ended.append(made.id)
        await store.end("bees", made.id, now - timedelta(seconds=seconds))
    last = await store.add(record("bees"), most=5)
    assert last is not None
    left = {it.id for it in await store.page("bees", after="", size=100)}
    # The valid ones, and those that ended last.
    assert left == {kept.id, last.id, *ended[-5:]}
    assert await store.find(other.id) is not None
