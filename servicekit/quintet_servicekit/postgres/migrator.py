"""Brings a service's schema up to date when the service starts.

A migration is a file `migrations/NNNN_name.sql` of the service. Each runs once, in a transaction
of its own, under an advisory lock that replicas which start together wait for. A
migration that was applied must never change again: its checksum is compared.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources

import psycopg
from psycopg import conninfo, errors, sql

from quintet_servicekit import telemetry
from quintet_servicekit.postgres import tenancy
from quintet_servicekit.postgres.settings import PostgresSettings

_LOCKS = 0x5155494E54455400
"""What the keys of advisory locks begin with: "QUINTET" in ASCII; a schema's number is
added."""

_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


OLDEST = 18
"""The least major version of PostgreSQL: statements return what a row was before it was changed."""


class MigrationError(Exception):
    """The schema in the database is not one that this program can use."""


class RoleMissingError(MigrationError):
    """The service's role is not there yet: others make it, who manage the database."""


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


@dataclass(frozen=True, slots=True)
class Schema:
    """A service's part of the database: the schema's name, a number of its own from 1 to
    255, and the package whose folder `migrations` makes it."""

    name: str
    number: int
    package: str

    def shipped(self) -> list[Migration]:
        """Return the migrations of this program, in their order."""
        folder = resources.files(self.package) / "migrations"
        found = []
        for file in folder.iterdir():
            if file.name.endswith(".sql"):
                number, _, name = file.name.removesuffix(".sql").partition("_")
                found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
        return sorted(found, key=lambda migration: migration.version)


@dataclass(frozen=True, slots=True)
class ServiceRole:
    """The role that a service works with, and its password."""

    name: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, url: str) -> ServiceRole:
        """Return the role that a connection by this URL has."""
        parts = conninfo.conninfo_to_dict(url)
        return cls(str(parts.get("user") or getpass.getuser()), str(parts.get("password") or ""))


async def migrate(
    url: str,
    schema: Schema,
    *,
    connect_timeout: int,
    lock_timeout: float,
    migrations: Iterable[Migration] | None = None,
    service: ServiceRole | None = None,
) -> list[int]:
    """Apply what was not applied yet and return its versions.

    `url` is the owner's. Waits at most `lock_timeout` seconds for any lock. `migrations` are
    those of this program unless others are given. Then `service` may use the schema.
    Raises `MigrationError` when the server is too old, an applied migration has changed or that
    role could pass by row-level security, `RoleMissingError` and psycopg's errors.
    """
    applied = []
    connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        connect_timeout=connect_timeout,
        application_name=f"quintet-{schema.name}-migration",
    )
    async with connection:
        version = connection.info.server_version
        if version < OLDEST * 10_000:
            raise MigrationError(f"PostgreSQL {OLDEST} is needed; this is {version // 10_000}")
        for migration in schema.shipped() if migrations is None else migrations:
            async with connection.transaction():
                if await _apply(connection, schema, migration, lock_timeout):
                    applied.append(migration.version)
        if service is not None:
            async with connection.transaction():
                await _lock(connection, schema, lock_timeout)
                await _admit(connection, schema, service)
    return applied


async def migrate_when_possible(settings: PostgresSettings, schema: Schema) -> None:
    """Migrate as soon as the database answers and has the service's role, however long that
    takes. Raises `MigrationError` as `migrate` does."""
    url = settings.database_url.get_secret_value()
    while True:
        try:
            applied = await migrate(
                settings.owner_database_url.get_secret_value() or url,
                schema,
                connect_timeout=settings.connect_timeout_seconds,
                lock_timeout=settings.migration_lock_timeout_seconds,
                service=ServiceRole.of(url),
            )
        except (psycopg.OperationalError, RoleMissingError) as error:
            telemetry.logger().warning("waiting for the database", cause=type(error).__name__)
            # Replicas that wait together do not come back together.
            await asyncio.sleep(random.uniform(0.3, 1.0))  # noqa: S311
        else:
            telemetry.logger().info("the schema is up to date", applied=applied)
            return


async def _admit(connection: psycopg.AsyncConnection, schema: Schema, service: ServiceRole) -> None:
    """Let the service use the schema. Its role is made where it is not there yet."""
    found = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [service.name])
    if await found.fetchone() is None:
        await _make_role(connection, service)
    admit = sql.SQL("SELECT {}.admit(%s)").format(sql.Identifier(schema.name))
    try:
        await connection.execute(admit, [service.name])
    except errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"the role {service.name} could read every tenant's rows: let the service have one"
            " of its own, and name the owner's in OWNER_DATABASE_URL (docs/tenants.md)"
        ) from error


async def _make_role(connection: psycopg.AsyncConnection, service: ServiceRole) -> None:
    name, password = service.name.encode(), service.password.encode()
    # What the server stores: the password itself would stand in its log of statements.
    verifier = connection.pgconn.encrypt_password(password, name, b"scram-sha-256")
    make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
        sql.Identifier(service.name), sql.Literal(verifier.decode())
    )
    try:
        async with connection.transaction():
            await connection.execute(make)
    except (errors.DuplicateObject, errors.UniqueViolation):
        return  # a replica on another database of the server was faster
    except errors.InsufficientPrivilege as error:
        raise RoleMissingError(
            f"there is no role {service.name}, and the owner may not make it"
        ) from error


async def _lock(connection: psycopg.AsyncConnection, schema: Schema, lock_timeout: float) -> None:
    await connection.execute(
        "SELECT set_config('lock_timeout', %s, true)", [str(round(lock_timeout * 1000))]
    )
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCKS + schema.number])


async def _apply(
    connection: psycopg.AsyncConnection,
    schema: Schema,
    migration: Migration,
    lock_timeout: float,
) -> bool:
    name = sql.Identifier(schema.name)
    await _lock(connection, schema, lock_timeout)
    await connection.execute(sql.SQL(_BOOKKEEPING).format(schema=name))
    if migration.version == 1:
        await connection.execute(tenancy.functions(schema.name))
    cursor = await connection.execute(
        sql.SQL("SELECT checksum FROM {}.schema_migration WHERE version = %s").format(name),
        [migration.version],
    )
    row = await cursor.fetchone()
    if row is not None:
        if row[0] != migration.checksum:
            raise MigrationError(f"migration {migration.version} has changed since it was applied")
        return False
    await connection.execute(sql.SQL(migration.text))
    await connection.execute(
        sql.SQL(
            "INSERT INTO {}.schema_migration (version, name, checksum) VALUES (%s, %s, %s)"
        ).format(name),
        [migration.version, migration.name, migration.checksum],
    )
    return True
