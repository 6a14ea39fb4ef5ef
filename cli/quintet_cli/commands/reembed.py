"""`quintet collections reembed`: a collection with another embedding model."""

from __future__ import annotations

import asyncio

from quintet.gateway.v1.gateway_service_pb2 import (
    Compared,
    ReembedCollectionRequest,
    Switched,
)
from quintet_cli import render
from quintet_cli.connection import STREAM_SECONDS, connected
from quintet_cli.live import Progress
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json


def run(settings: Settings, request: ReembedCollectionRequest) -> None:
    """Embed a collection anew beside itself, show how far that is and how much both agree,
    and let the new one take its place if that was asked for."""
    asyncio.run(_run(settings, request))


async def _run(settings: Settings, request: ReembedCollectionRequest) -> None:
    name = request.collection
    async with connected(settings) as gateway:
        with Progress(f"{name}, beside itself", total=0, unit="documents") as progress:
            events = gateway.stream(
                "ReembedCollection",
                gateway.stub.ReembedCollection,
                request,
                seconds=STREAM_SECONDS,
            )
            async for event in events:
                if settings.json:
                    print_json(as_json(event))
                    continue
                match event.WhichOneof("event"):
                    case "copied":
                        progress.reach(event.copied.documents, event.copied.total)
                    case "compared":
                        progress.stop()
                        _compared(event.compared, request)
                    case _:
                        _switched(event.switched, request)


def _compared(compared: Compared, request: ReembedCollectionRequest) -> None:
    out = console()
    out.print(
        f"{compared.overlap:.0%} of the nearest documents are the same,"
        f" in {compared.searches} searches"
    )
    if not request.switch:
        out.print(f"to let it take the place of {request.collection}: the same with --switch")


def _switched(switched: Switched, request: ReembedCollectionRequest) -> None:
    out = console()
    out.print(f"{request.collection} is the new one; that of before is {switched.beside}")
    back = f"quintet collections reembed {request.collection} --beside {switched.beside}"
    out.print(f"the way back: {back} --model MODEL-OF-BEFORE --switch", soft_wrap=True)
    render.token(out, request.collection, switched.consistency_token)
