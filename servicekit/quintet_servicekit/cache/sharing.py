"""One computation for all replicas: a short lease in Redis, for which the others wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeVar

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.lease import Lease, take
from quintet_servicekit.cache.remote import Remote
from quintet_servicekit.cache.settings import CacheSettings

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.05
"""Pauses between looks for another replica's value double from the first to the longest.
One look is one round trip, and one caller a process and key looks."""


async def find_or_claim(
    remote: Remote,
    key: str,
    received: Callable[[bytes | None], T | None],
    settings: CacheSettings,
) -> tuple[T | None, Lease | None]:
    """Return what `received` makes of the value of `key` in Redis, where another replica
    has written it meanwhile, or else None: then we compute, mostly with the lease to do so.

    After `lease_wait_seconds`, and whenever Redis is away, we compute without a lease: a
    value twice is better than none.
    """
    until = time.monotonic() + settings.lease_wait_seconds
    pause = FIRST_PAUSE_SECONDS
    look = ("GET", remote.key(key))
    while True:
        try:
            # The value after the lease: else it could be written, and its lease be ended,
            # between the two, and we would compute it again.
            lease, raw = await take(remote, f"{key}:lease", settings.lease_seconds, then=look)
        except AwayError:
            return None, None
        found = received(raw)
        if found is not None and lease is not None:
            lease.give_back()
        if found is not None:
            return found, None
        if lease is not None or time.monotonic() >= until:
            return None, lease
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
