"""What end-to-end tests do with a gateway: fill a collection, ask, read errors."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub

MESSAGE_OPTIONS = [
    ("grpc.max_send_message_length", 128 * 2**20),
    ("grpc.max_receive_message_length", 128 * 2**20),
]


@asynccontextmanager
async def gateway_stub(address: str) -> AsyncIterator[Any]:
    """Yield an asynchronous stub of the gateway at `address`."""
    async with grpc.aio.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
        yield GatewayServiceStub(channel)


@asynccontextmanager
async def new_collection(stub: Any, documents: Iterable[pb.Document] = ()) -> AsyncIterator[str]:
    """Yield the name of a new collection that holds `documents`; it is deleted after."""
    name = f"test-{secrets.token_hex(6)}"
    await _create(stub, name)
    try:
        for acknowledged in await ingest(stub, name, list(documents)):
            assert acknowledged.HasField("ingested"), acknowledged
        yield name
    finally:
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))


async def _create(stub: Any, name: str) -> None:
    # A service that another test had stopped or frozen is used again within five seconds.
    async with asyncio.timeout(10):
        while True:
            try:
                await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)


async def ingest(
    stub: Any, collection: str, documents: Sequence[pb.Document]
) -> list[pb.IngestResponse]:
    """Return the acknowledgements of `documents`, in their order."""
    requests = [pb.IngestRequest(collection=collection, document=it) for it in documents]
    responses = [response async for response in stub.Ingest(iter(requests))]
    return sorted(responses, key=lambda response: response.index)


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in a failed call's ErrorInfo."""
    trailers: dict[str, Any] = dict(cast(Any, error.trailing_metadata() or ()))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    assert info.domain == "quintet"
    return str(info.reason)
