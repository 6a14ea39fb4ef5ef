"""The processes of a run: whom to call, and how to kill and to freeze them."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
from redis.asyncio import Redis
from support import tenants
from support.replica import gateway_beside, redis_url
from support.stack import TestStack

from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from quintet_local.service import Service
from quintet_servicekit.identity import DEFAULT_TENANT

GATEWAY = "gateway"
SECOND = "second gateway"
RETRIEVER = "retriever"
VALKEY = "valkey"

OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    # Who comes back is to be asked at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class SecondGateway:
    """A gateway beside that of the stack, started anew after it was killed."""

    def __init__(self, service: Service, process: Process) -> None:
        self._service = service
        self._process = process

    @property
    def pid(self) -> int:
        """Id of its present process."""
        return self._process.pid

    async def start_again(self) -> None:
        """Start it anew, once its process has ended."""
        await self._process.wait()
        self._process = await self._service.start()

    async def stop(self) -> None:
        """End it."""
        await self._service.stop(self._process)


class Stub:
    """A service's stub whose calls are all a tenant's, by that metadata."""

    def __init__(self, stub: Any, metadata: tuple[str, str]) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=(self._metadata,))


@dataclass(frozen=True)
class Replicas:
    """Who is called; `gateways` by name."""

    stack: TestStack
    second: SecondGateway
    gateways: dict[str, Any]
    retriever: Any
    embedder: Any

    def pid(self, name: str) -> int:
        """Return the id of the process of that name."""
        return self.second.pid if name == SECOND else self.stack.pid(name)

    async def kill(self, name: str) -> None:
        """Kill a process; return once another has taken its place and is ready."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        if name == SECOND:
            await self.second.start_again()
        # Its watcher runs on another thread, and tells of no event.
        while self.pid(name) == pid:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def freeze(self, name: str, seconds: float) -> None:
        """Let a process stand still."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def of(self, tenant: str) -> Replicas:
        """Return the same, called for a tenant."""
        if tenant == DEFAULT_TENANT:
            return self
        here = tenants.gateway_metadata(tenant)
        there = tenants.service_metadata(self.stack.state_dir, tenant)
        return replace(
            self,
            gateways={name: Stub(stub, here) for name, stub in self.gateways.items()},
            retriever=Stub(self.retriever, there),
        )

    async def cut_followers(self) -> None:
        """Cut off all who follow Valkey's news, and let them follow again."""
        async with Redis.from_url(redis_url(self.stack)) as server:
            await server.client_kill_filter(_type="pubsub")


@asynccontextmanager
async def replicas_of(stack: TestStack) -> AsyncIterator[Replicas]:
    """Yield the processes of a stack, with a second gateway beside it."""
    known = tenants.environment(stack.state_dir.parent) | {
        "QUINTET_GATEWAY_SIGNING__KEY": str(stack.state_dir / "identity.key")
    }
    service = gateway_beside(
        stack, **{name.removeprefix("QUINTET_GATEWAY_"): value for name, value in known.items()}
    )
    try:
        second = SecondGateway(service, await service.start())
        try:
            addresses = {
                GATEWAY: stack.gateway,
                SECOND: service.address,
                RETRIEVER: stack.endpoints["retriever"]["grpc"],
                "embedder": stack.endpoints["embedder"]["grpc"],
            }
            channels = {
                name: grpc.aio.insecure_channel(address, options=OPTIONS)
                for name, address in addresses.items()
            }
            try:
                yield Replicas(
                    stack,
                    second,
                    {name: GatewayServiceStub(channels[name]) for name in (GATEWAY, SECOND)},
                    RetrieverServiceStub(channels[RETRIEVER]),
                    EmbedderServiceStub(channels["embedder"]),
                )
            finally:
                for channel in channels.values():
                    await channel.close(None)
        finally:
            await second.stop()
    finally:
        service.close()
