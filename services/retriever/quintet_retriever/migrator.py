"""Brings the database's schema up to date when the service starts.

A migration is a file `migrations/NNNN_name.sql`. Each runs once, in a transaction
of its own, under an advisory lock that replicas which start together wait for. A
migration that was applied must never change again: its checksum is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import psycopg
from psycopg import sql

_LOCK = 0x5155494E54455401
"""Key of the advisory lock: "QUINTET" in ASCII, and 1 for the retriever."""

_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS retriever;
CREATE TABLE IF NOT EXISTS retriever.schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


class MigrationError(Exception):
    """The schema in the database is not one that this program can use."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A file of SQL statements; `version` counts from 1 without a gap."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> list[Migration]:
    """Return the migrations of this program, in their order."""
    folder = resources.files("quintet_retriever") / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(
    conninfo: str,
    *,
    connect_timeout: int,
    lock_timeout: float,
    migrations: Iterable[Migration] | None = None,
) -> list[int]:
    """Apply what was not applied yet and return its versions.

    Waits at most `lock_timeout` seconds for any lock. `migrations` are those of this
    program unless others are given. Raises `MigrationError` when
    an applied migration has changed, and psycopg's errors.
    """
    applied = []
    connection = await psycopg.AsyncConnection.connect(
        conninfo,
        autocommit=True,
        connect_timeout=connect_timeout,
        application_name="quintet-retriever-migration",
    )
    async with connection:
        for migration in shipped() if migrations is None else migrations:
            async with connection.transaction():
                if await _apply(connection, migration, lock_timeout):
                    applied.append(migration.version)
    return applied


async def _apply(
    connection: psycopg.AsyncConnection, migration: Migration, lock_timeout: float
) -> bool:
    await connection.execute(
        "SELECT set_config('lock_timeout', %s, true)", [str(round(lock_timeout * 1000))]
    )
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await connection.execute(_BOOKKEEPING)
    cursor = await connection.execute(
        "SELECT checksum FROM retriever.schema_migration WHERE version = %s", [migration.version]
    )
    row = await cursor.fetchone()
    if row is not None:
        if row[0] != migration.checksum:
            raise MigrationError(f"migration {migration.version} has changed since it was applied")
        return False
    await connection.execute(sql.SQL(migration.text))
    await connection.execute(
        "INSERT INTO retriever.schema_migration (version, name, checksum) VALUES (%s, %s, %s)",
        [migration.version, migration.name, migration.checksum],
    )
    return True
