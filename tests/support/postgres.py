"""Fixtures: one real PostgreSQL server a test process, a fresh database a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from quintet_local.postgres import running_postgres

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Server settings for data that nobody keeps."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """DSN of a server that all tests of this process share; each test makes its
    own database in it (`database_url`)."""
    folder = tmp_path_factory.mktemp("postgres")
    async with running_postgres(folder, options=FAST) as dsn:
        yield dsn


@contextmanager
def new_database(postgres_server: str) -> Iterator[str]:
    """Yield the DSN of a new, empty database of the server; it is dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    identifier = sql.Identifier(name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        yield urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def service_url(url: str, service: str = "service") -> str:
    """Return the URL by which a service works on the owner's database at `url`: with a role
    of its own, which it makes when it first migrates."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{service}:pass@{parts.netloc.partition('@')[2]}").geturl()


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    """DSN of a new, empty database, dropped after the test."""
    with new_database(postgres_server) as url:
        yield url
