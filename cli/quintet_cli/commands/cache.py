"""`quintet cache stats` and `explain`: how the caches are used, and what that of the
answers would do with a question."""

from __future__ import annotations

import asyncio

from quintet.cache.v1.cache_service_pb2 import TierStats
from quintet.gateway.v1.gateway_service_pb2 import (
    ExplainCacheRequest,
    ExplainCacheResponse,
    GetCacheStatsRequest,
    ServiceCaches,
)
from quintet_cli import cache_use
from quintet_cli.arguments import Asked
from quintet_cli.commands.ask import request_of
from quintet_cli.connection import connected
from quintet_cli.settings import Settings
from quintet_cli.terminal import age, as_json, console, print_json, shown, table


def stats(settings: Settings) -> None:
    """Print how each service's tiers were used and what they hold."""
    asyncio.run(_stats(settings))


async def _stats(settings: Settings) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary(
            "GetCacheStats", gateway.stub.GetCacheStats, GetCacheStatsRequest()
        )
    if settings.json:
        print_json(as_json(response))
        return
    use = table("service", "tier", ">hits", ">misses", ">hit rate", ">stale", ">shared", ">errors")
    content = table("service", "tier", ">entries", ">memory", "Redis")
    for caches in response.services:
        for tier in caches.tiers:
            use.add_row(*_use(caches, tier))
            content.add_row(*_content(caches, tier))
    out = console()
    if use.row_count:
        # Two tables, because one of all columns is wider than a terminal.
        out.print(use)
        out.print()
        out.print(content)
    else:
        out.print("no service tells of a cache")
    if away := [caches.service for caches in response.services if not caches.reachable]:
        told = f"{', '.join(away)} did not answer and is left out; see: quintet status"
        out.print(told, style="red")


def _use(caches: ServiceCaches, tier: TierStats) -> list[str]:
    lookups = tier.hits + tier.misses + tier.stale + tier.shared
    return [
        caches.service,
        tier.tier,
        f"{tier.hits}",
        f"{tier.misses}",
        f"{tier.hits / lookups:.1%}" if lookups else "–",
        f"{tier.stale}",
        f"{tier.shared}",
        f"{tier.errors}",
    ]


def _content(caches: ServiceCaches, tier: TierStats) -> list[str]:
    return [
        caches.service,
        tier.tier,
        f"{tier.entries}",
        f"{tier.bytes / 2**20:.1f} of {tier.max_bytes / 2**20:.0f} MiB",
        "yes" if caches.redis_available else "no",
    ]


def explain(settings: Settings, asked: Asked) -> None:
    """Print what the cache of answers would do with a question, and why."""
    asyncio.run(_explain(settings, ExplainCacheRequest(request=request_of(asked))))


async def _explain(settings: Settings, request: ExplainCacheRequest) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary("ExplainCache", gateway.stub.ExplainCache, request)
    if settings.json:
        print_json(as_json(response))
        return
    out = console()
    out.print(shown(response.explanation))
    rows = table("", "")
    rows.show_header = False
    for name, value in _facts(response).items():
        if value:
            rows.add_row(name, value)
    out.print()
    out.print(rows)


def _facts(response: ExplainCacheResponse) -> dict[str, str]:
    cache = response.cache
    epochs = {"kept at": response.answer_epoch, "collection": response.collection_epoch}
    return {
        "outcome": cache_use.outcome(cache.use),
        "possibly stale": "yes" if cache.possibly_stale else "",
        "tier": cache.use.tier,
        "store": cache_use.store(cache.use),
        "age": age(cache.use.age.ToNanoseconds() / 1e9) if cache.use.HasField("age") else "",
        "would save": cache_use.saved(cache),
        "answer to": cache_use.other_question(cache),
        "epoch": ", ".join(f"{name} {epoch}" for name, epoch in epochs.items() if epoch),
        "documents": ", ".join(map(shown, response.document_ids)),
        "key": response.key,
    }
