"""`quintet search`: the passages that match, without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quintet.gateway.v1.gateway_service_pb2 import SearchRequest
from quintet_cli import consistency, degradation, filters, refining, render
from quintet_cli.commands.ask import mode_of
from quintet_cli.connection import connected
from quintet_cli.live import Waiting
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json


def run(
    settings: Settings,
    query: str,
    *,
    collection: str,
    k: int,
    conditions: Sequence[str],
    mode: str,
    fresh: bool,
    after: str | None,
    fail_if_degraded: bool,
    refine: Sequence[str],
    links: int,
    waterfall: bool,
) -> None:
    """Search and print the hits, best first."""
    request = SearchRequest(
        collection=collection,
        query=query,
        k=k,
        filter=filters.parsed(conditions),
        mode=mode_of(mode),
        consistency=consistency.required(fresh=fresh, after=after),
        fail_if_degraded=fail_if_degraded,
        refinement=refining.parsed(refine),
        linked_passages=links,
    )
    asyncio.run(_run(settings, request, waterfall))


async def _run(settings: Settings, request: SearchRequest, waterfall: bool) -> None:
    async with connected(settings) as gateway:
        with Waiting("searching"):
            response = await gateway.unary("Search", gateway.stub.Search, request)
    if settings.json:
        print_json(as_json(response))
        return
    out = console()
    degradation.tell(out, response.degradations)
    if not response.hits:
        out.print(f"nothing in {request.collection} matches")
    render.hits(out, response.hits)
    render.linked(out, response.linked)
    if waterfall:
        out.print()
        render.waterfall(out, response.trail)
