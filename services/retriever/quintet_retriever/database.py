"""The retriever's part of PostgreSQL."""

from __future__ import annotations

from pgvector.psycopg import register_vector_async
from psycopg import errors
from psycopg.rows import DictRow

from quintet_retriever.models import CollectionGoneError
from quintet_retriever.settings import Settings
from quintet_servicekit.postgres import database
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import Schema

SCHEMA = Schema("retriever", 1, "quintet_retriever")


class Database(database.Database):
    """The pool of the retriever's connections, which know vectors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings, settings.breaker, service="retriever", prepare=register_vector_async
        )

    async def run(self, operation: Operation, *statements: Statement) -> list[DictRow]:
        """Run the statements as any database does. Raises `CollectionGoneError` when a
        table is not there."""
        try:
            return await super().run(operation, *statements)
        except errors.UndefinedTable as error:
            raise CollectionGoneError from error
