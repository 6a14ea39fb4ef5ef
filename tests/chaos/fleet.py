"""Replicas of each service over one stack's database and Redis, to be restarted in turn."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from support.replica import database_variables, redis_url
from support.stack import TestStack

from quintet_local.service import Service
from quintet_local.settings import LocalSettings

SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")


class Replica:
    """One process of a service, on a port that stays its own."""

    def __init__(self, name: str, service: Service) -> None:
        self.name = name
        self._service = service
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Its address, whether it runs or not."""
        return self._service.address

    async def start(self) -> None:
        """Start it; returns when it serves."""
        self._process = await self._service.start()

    async def stop(self) -> int | None:
        """End it with SIGTERM and return its exit status."""
        if self._process is None:
            return None
        await self._service.stop(self._process)
        return self._process.returncode

    async def restart(self) -> int | None:
        """End it, start it again, and return with which status it ended."""
        status = await self.stop()
        await self.start()
        return status


class Fleet:
    """The replicas, and where they and `others` of their kind are found."""

    def __init__(self, others: Mapping[str, str]) -> None:
        self.replicas: list[Replica] = []
        self._others = others

    def target(self, name: str) -> str:
        """Return the gRPC name of all replicas of a service."""
        addresses = [it.address for it in self.replicas if it.name == name]
        if name in self._others:
            addresses.append(self._others[name])
        return "ipv4:" + ",".join(addresses)


@asynccontextmanager
async def fleet_over(stack: TestStack, *, beside: bool = False) -> AsyncIterator[Fleet]:
    """Yield two running replicas of each service. With `beside` the stack's own are the
    second ones; its gateway knows no others than the stack's."""
    async with AsyncExitStack() as resources:
        others = {name: stack.endpoints[name]["grpc"] for name in SERVICES} if beside else {}
        fleet = Fleet(others)
        variables = database_variables(stack, "retriever")
        for name in SERVICES:
            prefix = f"QUINTET_{name.upper()}_"
            variables[f"{prefix}CACHE__REDIS_URL"] = redis_url(stack)
            variables[f"{prefix}LAME_DUCK_SECONDS"] = "0.5"
            for number in range(1 if beside else 2):
                service = Service(
                    name,
                    {**os.environ, **variables},
                    log_file=stack.state_dir / f"fleet-{name}-{number}.log",
                    settings=LocalSettings(),
                )
                resources.callback(service.close)
                fleet.replicas.append(Replica(name, service))
            # Those that come later, the gateways last, find the others by it.
            variables[f"QUINTET_GATEWAY_{name.upper()}_ADDRESS"] = fleet.target(name)
        try:
            await asyncio.gather(*(replica.start() for replica in fleet.replicas))
            yield fleet
        finally:
            await asyncio.gather(*(replica.stop() for replica in fleet.replicas))
