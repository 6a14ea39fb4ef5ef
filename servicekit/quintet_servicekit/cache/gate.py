"""Whether Redis is worth asking: closed to callers after a few failures, until a probe
in the background has had an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from redis.exceptions import AuthenticationError

from quintet_servicekit import telemetry
from quintet_servicekit.cache import metrics

FAILURES = 3
"""Consecutive failures after which Redis counts as gone: one can be a restart's reset of
an idle connection, and three cost a caller at most three timeouts."""
PROBE_SECONDS = 0.25
"""Pause between probes, so that Redis is used again within a second of its return."""
REFUSED_PROBE_SECONDS = 5.0
"""Pause after a refused password: it is changed by people, and each try is logged there."""


class AwayError(Exception):
    """Redis did not do what was asked; go on without it. It has been counted."""


class Gate:
    """Counts failures of commands to Redis and asks it again when they were too many.

    `probe` makes one attempt and raises what went wrong.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        self._probe = probe
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        self._logged: str | None = None
        metrics.REDIS_AVAILABLE.set(1)

    @property
    def open(self) -> bool:
        """Whether commands may be sent."""
        return self._probing is None

    def succeeded(self) -> None:
        """Note a reply."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Note that a command had no reply because of `error`."""
        self._failures += 1
        refused = isinstance(error, AuthenticationError)
        if self.open and (refused or self._failures >= FAILURES):
            metrics.REDIS_AVAILABLE.set(0)
            self._log(error)
            self._probing = asyncio.create_task(self._until_answered(refused), name="redis probe")

    async def _until_answered(self, refused: bool) -> None:
        while True:
            pause = REFUSED_PROBE_SECONDS if refused else PROBE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                await self._probe()
            except Exception as error:
                refused = isinstance(error, AuthenticationError)
                self._log(error)
                continue
            self._failures = 0
            self._probing = None
            self._logged = None
            metrics.REDIS_AVAILABLE.set(1)
            telemetry.logger().info("redis is used again")
            return

    def _log(self, error: Exception) -> None:
        """Log once each time that the cause changes between absence and a refused password."""
        refused = isinstance(error, AuthenticationError)
        state = "refused" if refused else "absent"
        if state == self._logged:
            return
        self._logged = state
        if refused:
            telemetry.logger().error("redis refuses our password; nothing is cached there")
        else:
            telemetry.logger().warning("redis does not answer", cause=type(error).__name__)

    async def aclose(self) -> None:
        """End the probe."""
        probing = self._probing
        if probing is not None:
            probing.cancel()
            await asyncio.wait({probing})
