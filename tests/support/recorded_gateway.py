"""A gateway that records what it is asked and plays back what it was told.

It stands for the network's far end in the tests of the command line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)
from quintet_servicekit.errors import DETAILS_KEY, ServiceError, to_status

Reply = Message | ServiceError
Acknowledge = Callable[[int, pb.IngestRequest], pb.IngestResponse | ServiceError]


def created(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
    """Acknowledge a document as new, with one chunk for each ten characters."""
    chunks = len(request.document.content) // 10 + 1
    return pb.IngestResponse(
        index=index,
        document_id=request.document.id,
        ingested=pb.Ingested(
            outcome=pb.INGEST_OUTCOME_CREATED, version=1, chunks=chunks, tokens=3 * chunks
        ),
    )


class RecordedGateway(GatewayServiceServicer):
    """`replies` holds, by method, what is played: a message or an error, or a list of
    them: one a call, or of a stream one an event. `acknowledge` answers documents."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.deadlines: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []
        self.replies: dict[str, Reply | list[Any]] = {}
        self.acknowledge: Acknowledge = created
        self.held_acknowledgements = threading.Event()
        self.held_acknowledgements.set()
        self.left = threading.Event()
        self.address = ""

    def asked(self, method: str) -> list[Any]:
        """Return the requests of one method, in order."""
        return [request for name, request in self.requests if name == method]

    def Ingest(self, requests: Iterator[pb.IngestRequest], context: Any) -> Iterator[Any]:
        """Acknowledge documents in their order, not before that is let happen."""
        context.add_callback(self.left.set)
        for index, request in enumerate(requests):
            self._record("Ingest", request, context)
            self.held_acknowledgements.wait(timeout=30)
            reply = self.acknowledge(index, request)
            if isinstance(reply, ServiceError):
                # gRPC resets a stream that ends with messages unread, and the client
                # may see that before the error.
                for _ in requests:
                    pass
            yield _played(reply, context)

    def _record(self, method: str, request: Any, context: Any) -> None:
        self.requests.append((method, request))
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())

    def _unary(self, method: str, request: Any, context: Any) -> Any:
        self._record(method, request, context)
        reply = self.replies[method]
        return _played(reply.pop(0) if isinstance(reply, list) else reply, context)


def _played(reply: Reply, context: Any) -> Message:
    if isinstance(reply, ServiceError):
        context.set_trailing_metadata(((DETAILS_KEY, to_status(reply).SerializeToString()),))
        context.abort(reply.code, reply.message)
    assert isinstance(reply, Message)
    return reply


def _streaming_method(name: str) -> Any:
    def method(self: RecordedGateway, request: Any, context: Any) -> Iterator[Any]:
        self._record(name, request, context)
        replies = self.replies[name]
        for reply in replies if isinstance(replies, list) else [replies]:
            yield _played(reply, context)

    return method


def _unary_method(name: str) -> Any:
    def method(self: RecordedGateway, request: Any, context: Any) -> Any:
        return self._unary(name, request, context)

    return method


for _name in (
    *("Ask", "Search", "GetDocument", "ListDocuments", "DeleteDocument"),
    *("CreateCollection", "GetCollection", "ListCollections", "DeleteCollection", "GetStatus"),
    *("GetCacheStats", "ExplainCache", "PurgeCache"),
):
    setattr(RecordedGateway, _name, _unary_method(_name))
for _name in ("AskStream", "ReembedCollection"):
    setattr(RecordedGateway, _name, _streaming_method(_name))


@contextmanager
def recorded_gateway() -> Iterator[RecordedGateway]:
    """Serve a `RecordedGateway` on a free port; its `address` is set."""
    gateway = RecordedGateway()  # type: ignore[abstract]  # its methods are set below its class
    server = grpc.server(
        ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 16 * 2**20)]
    )
    add_GatewayServiceServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield gateway
    finally:
        gateway.held_acknowledgements.set()
        server.stop(grace=None).wait()
