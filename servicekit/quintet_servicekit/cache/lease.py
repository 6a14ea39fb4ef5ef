"""A replica's claim to compute something, kept in Redis while it computes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.remote import Command, Remote
from quintet_servicekit.cache.script import RELEASE
from quintet_servicekit.spans import outside_calls


class Lease:
    """A lease that we hold, renewed until it is given back; made by `take`."""

    def __init__(self, remote: Remote, name: str, token: str, seconds: float) -> None:
        self._remote = remote
        self._name = name
        self.token = token
        self._seconds = seconds
        self._renewing = asyncio.create_task(self._renew(), name="lease", context=outside_calls())

    @property
    def held(self) -> bool:
        """Whether it is still ours, as far as we know."""
        return not self._renewing.done()

    def give_back(self, before: Sequence[Command] = (), payload_bytes: int = 0) -> None:
        """End the lease after the commands `before` and all that the writer was given before;
        waits for nothing."""
        self._renewing.cancel()
        release = ("EVAL", RELEASE.text, 1, self._remote.key(self._name), self.token)
        self._remote.writer.submit([*before, release], payload_bytes + len(RELEASE.text))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                if not await self._remote.renew(self._name, self.token, self._seconds):
                    return
            except AwayError:
                continue


async def take(
    remote: Remote, name: str, seconds: float, *, then: Command
) -> tuple[Lease | None, Any]:
    """Take the lease `name` for `seconds` unless somebody has it, and run the command `then`
    after that in the same round trip; return our lease, or None, and its reply.

    Raises `AwayError`.
    """
    token = secrets.token_hex(8)
    lifetime_ms = max(1, round(seconds * 1000))
    claim = ("SET", remote.key(name), token, "NX", "PX", lifetime_ms)
    granted, reply = await remote.pipeline([claim, then])
    return (Lease(remote, name, token, seconds) if granted else None), reply
