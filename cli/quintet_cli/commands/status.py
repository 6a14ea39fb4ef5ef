"""`quintet status`: how the gateway and the services behind it are."""

from __future__ import annotations

import asyncio

import typer

from quintet.gateway.v1.gateway_service_pb2 import GetStatusRequest, ServiceState
from quintet_cli.connection import connected
from quintet_cli.errors import FAILED
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json, table

_SHOWN = {
    ServiceState.SERVICE_STATE_SERVING: ("serving", "green"),
    ServiceState.SERVICE_STATE_NOT_SERVING: ("not serving", "yellow"),
    ServiceState.SERVICE_STATE_UNREACHABLE: ("unreachable", "red"),
}


def run(settings: Settings) -> None:
    """Print each service's state and models; exit with 1 unless all are serving."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary("GetStatus", gateway.stub.GetStatus, GetStatusRequest())
    if settings.json:
        print_json(as_json(response))
    else:
        rows = table("service", "state", "models")
        rows.add_row("gateway", "serving", "", style="green")
        for service in response.services:
            word, style = _SHOWN.get(service.state, ("unknown", "red"))
            rows.add_row(service.service, word, ", ".join(service.models), style=style)
        console().print(rows)
    serving = ServiceState.SERVICE_STATE_SERVING
    if any(service.state != serving for service in response.services):
        raise typer.Exit(FAILED)
