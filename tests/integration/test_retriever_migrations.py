"""The retriever's schema: made once, whoever comes first."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from quintet_retriever.database import SCHEMA
from quintet_servicekit.postgres import migrator
from quintet_servicekit.postgres.migrator import Migration, MigrationError, migrate


async def apply(url: str, migrations: list[Migration], lock_timeout: float = 10) -> list[int]:
    return await migrate(
        url, SCHEMA, connect_timeout=5, lock_timeout=lock_timeout, migrations=migrations
    )


def applied(url: str) -> list[tuple[int, str]]:
    with psycopg.connect(url) as connection:
        query = "SELECT version, name FROM retriever.schema_migration ORDER BY version"
        return connection.execute(query).fetchall()


async def test_of_five_replicas_that_start_together_one_migrates(database_url: str) -> None:
    ran = await asyncio.gather(
        *[migrate(database_url, SCHEMA, connect_timeout=5, lock_timeout=30) for _ in range(5)]
    )
    versions = [migration.version for migration in SCHEMA.shipped()]
    assert sorted(version for replica in ran for version in replica) == versions
    assert applied(database_url) == [(it.version, it.name) for it in SCHEMA.shipped()]


async def test_a_migration_that_fails_leaves_nothing_and_stops_the_later_ones(
    database_url: str,
) -> None:
    good = Migration(1, "good", "CREATE TABLE a ()")
    bad = Migration(2, "bad", "CREATE TABLE b (); SELECT 1 / 0")
    later = Migration(3, "later", "CREATE TABLE c ()")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await apply(database_url, [good, bad, later])
    assert applied(database_url) == [(1, "good")]
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT to_regclass('a'), to_regclass('b'), to_regclass('c')")
        assert found.fetchone() == ("a", None, None)


async def test_a_migration_that_changed_after_it_was_applied_is_refused(
    database_url: str,
) -> None:
    await apply(database_url, [Migration(1, "a", "CREATE TABLE a ()")])
    with pytest.raises(MigrationError):
        await apply(database_url, [Migration(1, "a", "CREATE TABLE a (b integer)")])


async def test_a_server_that_is_too_old_is_refused_before_anything_is_made(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "OLDEST", 99)
    with pytest.raises(MigrationError, match=r"PostgreSQL 99 is needed; this is \d\d"):
        await apply(database_url, [Migration(1, "a", "CREATE TABLE a ()")])
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT to_regclass('a'), to_regnamespace('retriever')")
        assert found.fetchone() == (None, None)


async def test_a_migration_does_not_wait_for_ever(database_url: str) -> None:
    await apply(database_url, [Migration(1, "a", "CREATE TABLE a ()")])
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await apply(database_url, [Migration(2, "b", "DROP TABLE a")], lock_timeout=0.2)
    assert await apply(database_url, [Migration(2, "b", "DROP TABLE a")]) == [2]


def test_versions_count_from_one_without_a_gap() -> None:
    versions = [migration.version for migration in SCHEMA.shipped()]
    assert versions == list(range(1, len(versions) + 1))
