"""A bare grpc.aio server on the services' own event loop, that answers a Count with a
constant: what a call costs before anything is done for it.

    python -m bench.workers.echo_server
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import uvloop

from bench.workers.serving import Answer, serve
from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb


async def _count(request: pb.CountRequest, context: Any) -> pb.CountResponse:
    return pb.CountResponse(model="all-MiniLM-L6-v2", counts=[12] * len(request.texts))


async def _serve(ready: threading.Event, port: list[int]) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        _count, pb.CountRequest.FromString, pb.CountResponse.SerializeToString
    )
    service = "quintet.tokenizer.v1.TokenizerService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Count": handler}),)
    )
    port.append(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    ready.set()
    await asyncio.Event().wait()


def open_worker() -> Answer:
    """Start the server in a thread."""
    ready, port = threading.Event(), list[int]()
    threading.Thread(target=lambda: uvloop.run(_serve(ready, port)), daemon=True).start()
    ready.wait()
    return lambda: f"127.0.0.1:{port[0]}"


if __name__ == "__main__":
    serve(open_worker)
