"""`quintet status`: how the gateway and the services behind it are."""

from __future__ import annotations

import asyncio
from typing import cast

import typer

from quintet.gateway.v1.gateway_service_pb2 import (
    AccessMode,
    Breaker,
    DatabaseState,
    GetStatusRequest,
    GetStatusResponse,
    ServiceState,
)
from quintet.status.v1 import status_service_pb2 as status_pb2
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
        rows = table("service", "state", "gateway's breaker", "models")
        rows.add_row("gateway", "serving", "", "", style="green")
        for service in response.services:
            word, style = _SHOWN.get(service.state, ("unknown", "red"))
            models = ", ".join(service.models)
            rows.add_row(service.service, word, _breaker(service.breaker), models, style=style)
        console().print(rows)
        _print_dependencies(response)
        if response.access == AccessMode.ACCESS_MODE_OPEN:
            console(stderr=True).print(
                "OPEN: whoever reaches this gateway may ask and delete everything, without a key",
                style="bold red",
            )
    serving = ServiceState.SERVICE_STATE_SERVING
    if any(service.state != serving for service in response.services):
        raise typer.Exit(FAILED)


def _print_dependencies(response: GetStatusResponse) -> None:
    rows = table("service", "depends on", "breaker", "cause")
    told = [("gateway", response.dependencies)]
    told += [(service.service, service.dependencies) for service in response.services]
    for service, breakers in told:
        for breaker in breakers:
            is_closed = breaker.state == status_pb2.BREAKER_STATE_CLOSED
            rows.add_row(
                service,
                breaker.dependency,
                _breaker(breaker),
                "" if is_closed else breaker.cause,
                style="green" if is_closed else "red",
            )
    if response.database == DatabaseState.DATABASE_STATE_OFF:
        rows.add_row("gateway", "postgresql", "", "none is set: no records of answers are kept")
    elif response.database == DatabaseState.DATABASE_STATE_UNREACHABLE:
        rows.add_row("gateway", "postgresql", "", "it does not answer", style="red")
    if rows.row_count:
        console().print(rows)


def _breaker(breaker: Breaker | status_pb2.Breaker) -> str:
    """Return a breaker's state, and how long it has not been closed: "open for 12 s, 40
    calls refused"; "" where the gateway tells none."""
    # The two enums are equal.
    if breaker.state == status_pb2.BREAKER_STATE_UNSPECIFIED:
        return ""
    name = status_pb2.BreakerState.Name(cast(status_pb2.BreakerState.ValueType, breaker.state))
    words = name.removeprefix("BREAKER_STATE_").lower().replace("_", "-")
    if breaker.state == status_pb2.BREAKER_STATE_CLOSED:
        return words
    since = age(breaker.in_state.ToNanoseconds() / 1e9)
    return f"{words} for {since}, {breaker.rejections} calls refused"
