"""One computation for all replicas: a short lease in Redis, for which the others wait."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.remote import Remote
from quintet_servicekit.cache.script import RELEASE
from quintet_servicekit.cache.settings import CacheSettings

T = TypeVar("T")

LEASE_SUFFIX = ":lease"
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.05
"""Pauses between looks for another replica's value double from the first to the longest.
One look is one round trip, and one caller a process and key looks."""


@dataclass(frozen=True)
class Claim:
    """The right to compute the value of `key`; without a token where Redis could not grant one."""

    remote: Remote
    key: str
    token: str | None

    def give_back(self) -> None:
        """End the lease, after the writes that were submitted before; waits for nothing."""
        if self.token is not None:
            name = self.remote.key(_lease(self.key))
            command = ("EVAL", RELEASE.text, 1, name, self.token)
            self.remote.writer.submit([command], len(RELEASE.text))


async def claim(
    remote: Remote,
    key: str,
    received: Callable[[bytes | None], T | None],
    settings: CacheSettings,
) -> T | Claim:
    """Return the claim to compute the value of `key`, or what `received` makes of the value
    in Redis, which another replica has written meanwhile.

    After `lease_wait_seconds`, and whenever Redis is away, we compute too: a
    value twice is better than none.
    """
    until = time.monotonic() + settings.lease_wait_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        token = secrets.token_hex(8)
        lifetime_ms = max(1, round(settings.lease_seconds * 1000))
        lease = ("SET", remote.key(_lease(key)), token, "NX", "PX", lifetime_ms)
        try:
            # The value after the lease: else it could be written, and its lease be ended,
            # between the two, and we would compute it again.
            granted, raw = await remote.pipeline([lease, ("GET", remote.key(key))])
        except AwayError:
            return Claim(remote, key, None)
        ours = Claim(remote, key, token if granted else None)
        found = received(raw)
        if found is not None:
            ours.give_back()
            return found
        if granted or time.monotonic() >= until:
            return ours
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _lease(key: str) -> str:
    return key + LEASE_SUFFIX
