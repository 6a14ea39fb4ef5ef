"""Purging a tier, with a real server behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from quintet_servicekit.cache import Cache, CacheSettings, Codec, Remote, key_of, open_remote

TEXT = Codec(str.encode, bytes.decode)


@pytest.fixture
def settings(redis_url: str) -> CacheSettings:
    return CacheSettings(redis_url=SecretStr(redis_url), redis_timeout_seconds=1)


@pytest.fixture
async def remote(settings: CacheSettings) -> AsyncIterator[Remote]:
    async with open_remote(settings) as remote:
        assert remote is not None
        yield remote


async def test_a_purge_drops_its_tier_of_all_replicas_and_schemas_and_no_other(
    settings: CacheSettings, remote: Remote
) -> None:
    tier, older = (Cache("l2", TEXT, settings, remote, schema=schema) for schema in (2, 1))
    other = Cache("l2-more", TEXT, settings, remote)
    keys = [key_of(number) for number in range(1_500)]
    tier.put_many((key, "x") for key in keys)
    older.put(keys[0], "y")
    other.put(keys[0], "z")
    await remote.command("SET", remote.key(f"l2:2:{keys[0]}:lease"), "token")
    assert await tier.purge() == 1_501
    replica = Cache("l2", TEXT, settings, remote, schema=2)
    assert await replica.get_many(keys) == [None] * len(keys)
    assert await Cache("l2", TEXT, settings, remote).get(keys[0]) is None
    kept = await Cache("l2-more", TEXT, settings, remote).get(keys[0])
    assert kept is not None and kept.value == "z"
    assert await remote.get(f"l2:2:{keys[0]}:lease") == b"token"
    assert await tier.purge() == 0
