"""`quintet status`: how the gateway and the services behind it are."""

from __future__ import annotations

import asyncio

import typer

from quintet.gateway.v1.gateway_service_pb2 import (
    Breaker,
    BreakerState,
    GetStatusRequest,
    ServiceState,
)
from quintet_cli.connection import connected
from quintet_cli.errors import FAILED
from quintet_cli.settings import Settings
from quintet_cli.terminal import age, as_json, console, print_json, table

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
        rows = table("service", "state", "breaker", "models")
        rows.add_row("gateway", "serving", "", "", style="green")
        for service in response.services:
            word, style = _SHOWN.get(service.state, ("unknown", "red"))
            models = ", ".join(service.models)
            rows.add_row(service.service, word, _breaker(service.breaker), models, style=style)
        console().print(rows)
    serving = ServiceState.SERVICE_STATE_SERVING
    if any(service.state != serving for service in response.services):
        raise typer.Exit(FAILED)


def _breaker(breaker: Breaker) -> str:
    """Return a breaker's state, and how long it has not been closed: "open for 12 s, 40
    calls refused"; "" where the gateway tells none."""
    if breaker.state == BreakerState.BREAKER_STATE_UNSPECIFIED:
        return ""
    name = BreakerState.Name(breaker.state).removeprefix("BREAKER_STATE_")
    words = name.lower().replace("_", "-")
    if breaker.state == BreakerState.BREAKER_STATE_CLOSED:
        return words
    since = age(breaker.in_state.ToNanoseconds() / 1e9)
    return f"{words} for {since}, {breaker.rejections} calls refused"
