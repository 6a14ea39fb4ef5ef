"""Runs one real service in this process, on a free port, behind the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from quintet_servicekit.server import Application, RunningServer
from quintet_servicekit.settings import ServiceSettings


@asynccontextmanager
async def serving(
    application: Application, settings: ServiceSettings | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a channel to the application once it is warm and ready."""
    settings = settings or ServiceSettings(
        lame_duck_seconds=0, drain_seconds=1, probe_interval_seconds=0.05
    )
    async with RunningServer(settings, application) as server:
        stop = asyncio.Event()
        running = asyncio.create_task(server.until(stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await server.ready()
            yield channel
        stop.set()
        assert await running == 0
