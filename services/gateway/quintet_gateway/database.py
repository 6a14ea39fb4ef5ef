"""The gateway's own part of PostgreSQL: the schema `gateway`.

No answer waits for it: while it is away, questions are answered all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.rows import DictRow

from quintet_gateway.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres import database
from quintet_servicekit.postgres.database import DEPENDENCY, Operation, Statement
from quintet_servicekit.postgres.migrator import MigrationError, Schema, migrate_when_possible

SCHEMA = Schema("gateway", 2, "quintet_gateway")


class Database(database.Database):
    """The pool of the gateway's connections. `migrated` is set once its tables are there."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.database_breaker, service="gateway")
        self._settings = settings
        self.migrated = asyncio.Event()

    async def migrate(self) -> None:
        """Make the tables, and connect, as soon as the server answers."""
        try:
            await migrate_when_possible(self._settings, SCHEMA)
        except MigrationError as error:
            # Answers go on without it.
            telemetry.logger().error("the database cannot be used", cause=str(error))
            return
        await self.open()
        self.migrated.set()

    async def run(self, operation: Operation, *statements: Statement) -> list[DictRow]:
        """Run the statements as any database does. Raises `ServiceError`
        DEPENDENCY_UNAVAILABLE before the tables are there."""
        if not self.migrated.is_set():
            raise ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "the database has not been reached yet",
                metadata={"dependency": DEPENDENCY},
            )
        return await super().run(operation, *statements)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database | None]:
    """Yield the gateway's database; None where none is set. Nobody waits for its server:
    it is migrated, and used, once that answers."""
    if not settings.database_url.get_secret_value():
        yield None
        return
    opened = Database(settings)
    try:
        async with beside(opened.migrate, "migration"):
            yield opened
    finally:
        await opened.close()
