"""Puts the retriever together: the one place where its parts are made and closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_retriever.database import Database
from quintet_retriever.engine import Engine
from quintet_retriever.migrator import migrate
from quintet_retriever.search_store import PostgresSearch
from quintet_retriever.searching import Searcher
from quintet_retriever.servicer import RetrieverServicer
from quintet_retriever.settings import Settings
from quintet_retriever.store import PostgresStore
from quintet_servicekit import telemetry
from quintet_servicekit.server import Application

SERVICE = pb.DESCRIPTOR.services_by_name["RetrieverService"].full_name


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the retriever; it becomes ready once PostgreSQL answers and is migrated."""
    database = Database(settings)
    searcher = Searcher(PostgresSearch(database, settings), settings.candidates)
    engine = Engine(PostgresStore(database, settings), searcher)
    servicer = RetrieverServicer(engine, settings)

    async def warm_up() -> None:
        await _migrate_when_possible(settings)
        await database.open()

    try:
        yield Application(
            service=SERVICE,
            register=lambda server: pb_grpc.add_RetrieverServiceServicer_to_server(
                servicer, server
            ),
            warm_up=warm_up,
            check=database.ping,
        )
    finally:
        await database.close()


async def _migrate_when_possible(settings: Settings) -> None:
    while True:
        try:
            applied = await migrate(
                settings.database_url.get_secret_value(),
                connect_timeout=settings.connect_timeout_seconds,
                lock_timeout=settings.migration_lock_timeout_seconds,
            )
        except psycopg.OperationalError as error:
            telemetry.logger().warning("waiting for the database", cause=type(error).__name__)
            # Replicas that wait together do not come back together.
            await asyncio.sleep(random.uniform(0.3, 1.0))  # noqa: S311
        else:
            telemetry.logger().info("the schema is up to date", applied=applied)
            return
