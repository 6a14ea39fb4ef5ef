"""A process of the kit's server whose calls last as long as they are told to.

`Generate` and `GenerateStream` take the request's `question` as the seconds that they
need; the stream sends a message before and one after. The environment's variables
without a prefix are the settings.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    add_GeneratorServiceServicer_to_server,
)
from quintet_local.ports import HOST, ReservedPort
from quintet_servicekit.server import Application, run
from quintet_servicekit.settings import ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"


class Timed(GeneratorServiceServicer):
    """Lasts as long as it is told to."""

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        await asyncio.sleep(float(request.question))
        return pb.GenerateResponse(text="done")

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        yield pb.GenerateStreamResponse(text_delta=pb.TextDelta(text="begun"))
        await asyncio.sleep(float(request.question))
        yield pb.GenerateStreamResponse(text_delta=pb.TextDelta(text="done"))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


async def _nothing() -> None:
    return None


@asynccontextmanager
async def _open_application() -> AsyncIterator[Application]:
    yield Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(Timed(), server),
        warm_up=_nothing,
        check=_nothing,
    )


@contextmanager
def scripted_process(**settings: float | str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a process that serves, or soon will, and its address; it is killed after."""
    port = ReservedPort()
    variables = {name.upper(): str(value) for name, value in settings.items()}
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path), "PORT": str(port.number)}
    variables["IDENTITY__REQUIRED"] = "false"
    process = subprocess.Popen(
        [sys.executable, "-m", "support.scripted_service"],
        env={**os.environ, **variables},
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            yield process, f"{HOST}:{port.number}"
        finally:
            process.kill()
            port.close()


if __name__ == "__main__":
    sys.exit(run("scripted", ServiceSettings(), _open_application))
