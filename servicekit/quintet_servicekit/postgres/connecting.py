"""Connections to PostgreSQL: how they are made, how they are ended when the server does not
answer, and one by which it is asked whether it does."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from quintet_servicekit.postgres.settings import PostgresSettings

Connection = psycopg.AsyncConnection[DictRow]

ASK_SECONDS = 1.0
"""What connecting and answering may each take when the server is asked how it is. What was
lost on the way is then sent anew, sooner than TCP would once it has waited long."""


def arguments(settings: PostgresSettings, service: str) -> dict[str, Any]:
    """Return what every connection of that service's calls is made with."""
    return {
        "autocommit": True,
        "row_factory": dict_row,
        "connect_timeout": settings.connect_timeout_seconds,
        "application_name": f"quintet-{service}",
        # A host that vanished without a word is noticed all the same.
        "keepalives_idle": 10,
        "tcp_user_timeout": 10_000,
    }


def hang_up(connection: Connection) -> None:
    """End a connection whose server does not answer. The task that reads from it finds
    its end, and closes it; were it closed here, another might get its number first."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as it, suppress(OSError):
            it.shutdown(socket.SHUT_RDWR)


class Probe:
    """A connection that no call can take: a busy database is not an absent one."""

    def __init__(self, settings: PostgresSettings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._connection: Connection | None = None
        self._asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        """Return when the server has answered. Raises psycopg's errors and TimeoutError.

        All who ask at once wait for one answer, which comes, or fails, within twice
        `ASK_SECONDS`. Who gives up before leaves it to the others.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(lambda it: it.cancelled() or it.exception())
        await asyncio.shield(self._asking)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            hang_up(self._connection)
        if self._asking is not None:
            if self._connection is None:
                self._asking.cancel()
            await asyncio.wait({self._asking})
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self) -> None:
        if self._connection is None:
            async with asyncio.timeout(ASK_SECONDS):
                self._connection = await self._connect()
        hanging = asyncio.get_running_loop().call_later(ASK_SECONDS, hang_up, self._connection)
        try:
            await self._connection.execute("SELECT 1")
        except BaseException:
            connection, self._connection = self._connection, None
            await connection.close()
            raise
        finally:
            hanging.cancel()

    async def _connect(self) -> Connection:
        return await psycopg.AsyncConnection[DictRow].connect(
            self._settings.database_url.get_secret_value(),
            **arguments(self._settings, self._service),
        )
