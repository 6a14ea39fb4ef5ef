"""The servicer of quintet.cache.v1.CacheService, which every service with a cache has, and
`CacheUse` as a message.

The one part of the kit that knows a contract of ours (ADR 7). A service registers it
in its `app.py`, beside its own servicer, and names `SERVICE` among the application's
`more_services`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from quintet.cache.v1 import cache_service_pb2 as pb
from quintet.cache.v1 import cache_service_pb2_grpc as pb_grpc
from quintet_servicekit.cache import AwayError, CacheStats, Remote
from quintet_servicekit.cache.use import CacheUse
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.validation import Checks

SERVICE = pb.DESCRIPTOR.services_by_name["CacheService"].full_name

MAX_TIERS = 16
"""Tiers that a Purge may name; a service has one or two."""
MAX_NAME_CHARS = 100

Context = grpc.aio.ServicerContext[Any, Any]


_OUTCOMES = {
    "hit": pb.CACHE_OUTCOME_HIT,
    "revalidated": pb.CACHE_OUTCOME_REVALIDATED,
    "stale": pb.CACHE_OUTCOME_STALE,
    "shared": pb.CACHE_OUTCOME_SHARED,
    "miss": pb.CACHE_OUTCOME_MISS,
    "bypass": pb.CACHE_OUTCOME_BYPASS,
}
_STORES = {
    None: pb.CACHE_STORE_UNSPECIFIED,
    "memory": pb.CACHE_STORE_MEMORY,
    "redis": pb.CACHE_STORE_REDIS,
}


def use_message(use: CacheUse) -> pb.CacheUse:
    """Return the message that tells a caller what a cache did."""
    message = pb.CacheUse(
        tier=use.tier,
        outcome=_OUTCOMES[use.outcome],
        store=_STORES[use.store],
        lookups=use.lookups,
        hits=use.hits,
        epoch=use.epoch,
    )
    for duration, seconds in ((message.age, use.age_seconds), (message.saved, use.saved_seconds)):
        if seconds is not None:
            duration.FromNanoseconds(round(seconds * 1e9))
    return message


class Tier(Protocol):
    """One tier; see `cache.Cache`."""

    tier: str

    def stats(self) -> CacheStats:
        """Return this process's counts and memory."""
        ...

    async def purge(self) -> int:
        """Drop all values and return how many. Raises `AwayError` when Redis couldn't be
        told."""
        ...


def register_cache_service(
    server: grpc.aio.Server, tiers: Sequence[Tier], remote: Remote | None
) -> None:
    """Let the server answer for `tiers`, whose names differ, and for the process's Redis."""
    pb_grpc.add_CacheServiceServicer_to_server(CacheServicer(tiers, remote), server)


class CacheServicer(pb_grpc.CacheServiceServicer):
    """See the contract for each method."""

    def __init__(self, tiers: Sequence[Tier], remote: Remote | None) -> None:
        self._tiers = {tier.tier: tier for tier in sorted(tiers, key=lambda it: it.tier)}
        self._remote = remote

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Tell what the tiers hold and how they are used."""
        return pb.GetStatsResponse(
            tiers=[_stats(tier.stats()) for tier in self._tiers.values()],
            redis_available=self._remote is not None and self._remote.available,
        )

    async def Purge(self, request: pb.PurgeRequest, context: Context) -> pb.PurgeResponse:
        """Empty the tiers."""
        checks = Checks()
        if len(request.tiers) > MAX_TIERS:
            checks.refuse("tiers", f"must hold at most {MAX_TIERS} items")
        for index, name in enumerate(request.tiers[:MAX_TIERS]):
            checks.text(f"tiers[{index}]", name, max_chars=MAX_NAME_CHARS)
            if name not in self._tiers:
                known = ", ".join(self._tiers)
                checks.refuse(f"tiers[{index}]", f"must be a tier of this service: {known}")
        checks.done()
        return pb.PurgeResponse(dropped=await self._purge(request.tiers or list(self._tiers)))

    async def _purge(self, names: Sequence[str]) -> int:
        """Empty every tier's memory, even if Redis can't be told; raise then."""
        dropped, away = 0, None
        for name in dict.fromkeys(names):
            try:
                dropped += await self._tiers[name].purge()
            except AwayError as error:
                away = error
        if away is not None:
            raise ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "memory was emptied, and Redis could not be told; ask again",
                metadata={"dependency": "redis"},
                retry_after=1.0,
            ) from away
        return dropped


def _stats(stats: CacheStats) -> pb.TierStats:
    return pb.TierStats(
        tier=stats.tier,
        hits=stats.hits,
        misses=stats.misses,
        stale=stats.stale,
        shared=stats.shared,
        errors=stats.errors,
        entries=stats.entries,
        bytes=stats.bytes,
        max_bytes=stats.max_bytes,
    )
