"""What it takes to decide a call's limits in Redis, by our script and by the library `limits`.

    python -m bench.rate_limits

docs/adr/0018 has what came out. The library is measured where it is installed.
"""

from __future__ import annotations

import asyncio
import importlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from pydantic import SecretStr

from quintet_gateway.admission.demand import Demand, Window
from quintet_gateway.admission.local import LocalLimits
from quintet_gateway.admission.shared import SharedLimits
from quintet_local.valkey import running_valkey
from quintet_servicekit.cache import CacheSettings, open_remote

CALLS = 2_000
PLENTY = 10**9
AT_ONCE = 1_000


async def median_ms(decide: Callable[[], Awaitable[Any]]) -> float:
    """Return the median of a decision, one after the other, in milliseconds."""
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await decide()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[CALLS // 2] * 1_000


def demand_of(number: int) -> Demand:
    """Return a demand of that many limits."""
    return Demand(tuple(Window(f"w{i}", "", PLENTY, 60 + i) for i in range(number)))


async def ours(url: str) -> None:
    """Measure our script, and what memory would take."""
    async with open_remote(CacheSettings(redis_url=SecretStr(url))) as remote:
        assert remote is not None
        shared, memory = SharedLimits(remote, lease_seconds=30), LocalLimits()
        for number in (1, 3, 6):
            demand = demand_of(number)

            async def here(demand: Demand = demand) -> None:
                memory.take(demand)

            took = await median_ms(lambda demand=demand: shared.take(demand))  # type: ignore[misc]
            print(f"our script, {number} limits: {took:.3f} ms; memory {await median_ms(here):.3f}")
        began = time.perf_counter()
        await asyncio.gather(*(shared.take(demand_of(3)) for _ in range(AT_ONCE)))
        print(f"{AT_ONCE} at once: {(time.perf_counter() - began) * 1_000:.0f} ms")


async def library(url: str) -> None:
    """Measure the library, one limit a round trip as it does."""
    limits = importlib.import_module("limits")
    strategies = importlib.import_module("limits.aio.strategies")
    storage = limits.storage.storage_from_string(f"async+{url}", implementation="redispy")
    for name in ("FixedWindowRateLimiter", "MovingWindowRateLimiter"):
        strategy = getattr(strategies, name)(storage)
        for number in (1, 3, 6):
            items = [limits.RateLimitItemPerMinute(PLENTY, i + 1) for i in range(number)]

            async def decide(items: list[Any] = items, name: str = name) -> None:
                for item in items:
                    await strategy.hit(item, name)  # noqa: B023

            print(f"{name}, {number} limits: {await median_ms(decide):.3f} ms")


async def main(folder: Path) -> None:
    """Measure both beside a Valkey of their own in `folder`."""
    async with running_valkey(folder, megabytes=256) as url:
        await ours(url)
        try:
            await library(url)
        except ModuleNotFoundError:
            print("the library is not installed: pip install limits")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        # The server may run as another user.
        Path(name).chmod(0o755)
        uvloop.run(main(Path(name)))
