"""A bare grpc.aio server on the services' own event loop, that answers every call of one
method with a constant: what a call costs before anything is done for it.

    python -m bench.workers.echo_server SERVICE METHOD RESPONSE

The response is a message of the method's own type, in base64. The request is parsed and
the response serialized for each call, as they must be.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from base64 import b64decode
from importlib import import_module
from typing import Any

import grpc
import uvloop
from google.protobuf import descriptor_pool, message_factory

from bench.workers.serving import Answer, serve


async def _serve(
    service: str, method: str, response: bytes, ready: threading.Event, port: list[int]
) -> None:
    package, _, name = service.rpartition(".")
    module = name.removesuffix("Service").lower()
    import_module(f"{package}.{module}_service_pb2")
    described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    answer = message_factory.GetMessageClass(described.output_type).FromString(response)

    async def echo(request: Any, context: Any) -> Any:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        message_factory.GetMessageClass(described.input_type).FromString,
        type(answer).SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port.append(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    ready.set()
    await asyncio.Event().wait()


def open_worker(service: str, method: str, response: str) -> Answer:
    """Start the server in a thread."""
    ready, port = threading.Event(), list[int]()
    work = _serve(service, method, b64decode(response), ready, port)
    threading.Thread(target=lambda: uvloop.run(work), daemon=True).start()
    ready.wait()
    return lambda: f"127.0.0.1:{port[0]}"


if __name__ == "__main__":
    serve(lambda: open_worker(*sys.argv[1:]))
