"""How a suite gets at what runs in a stack: stubs, and the database itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
from support.stack import TestStack

from chaos.inspection import Stubs
from chaos.replicas import OPTIONS
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub


@asynccontextmanager
async def stubs_of(stack: TestStack) -> AsyncIterator[Stubs]:
    """Yield stubs of a stack's services; they find who is back at once."""
    async with AsyncExitStack() as resources:

        async def channel(address: str) -> grpc.aio.Channel:
            opened = grpc.aio.insecure_channel(address, options=OPTIONS)
            return await resources.enter_async_context(opened)

        yield Stubs(
            GatewayServiceStub(await channel(stack.gateway)),
            RetrieverServiceStub(await channel(stack.endpoints["retriever"]["grpc"])),
            EmbedderServiceStub(await channel(stack.endpoints["embedder"]["grpc"])),
        )


def dsn_of(stack: TestStack) -> str:
    """Return the connection URI of a stack's PostgreSQL, with its password."""
    endpoint = stack.endpoints["postgres"]
    password = Path(endpoint["password_file"]).read_text(encoding="ascii").strip()
    return endpoint["dsn"].replace("postgresql://quintet@", f"postgresql://quintet:{password}@")
