"""Fixture: one real Valkey server a test process, emptied before each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis import Redis

from quintet_local.valkey import running_valkey


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """URL of a server that all tests of this process share."""
    async with running_valkey(tmp_path_factory.mktemp("valkey"), megabytes=64) as url:
        yield url


@pytest.fixture
def redis_url(valkey_server: str) -> Iterator[str]:
    """URL of the shared server, empty."""
    with Redis.from_url(valkey_server) as client:
        client.flushall()
    yield valkey_server
