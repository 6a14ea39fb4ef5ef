"""The policy that holds now: of the settings, or of a file that may change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from quintet_gateway import yaml_file
from quintet_gateway.admission.policy import Applied, Policy
from quintet_gateway.routing.policy import Answering
from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.identity import Identity

LOOK_SECONDS = 1.0
"""How often the file is looked at."""
MOST_CALLERS = 10_000
"""Callers whose limits are remembered, some 2 KiB each."""


class Policies:
    """Tells what holds for a caller, with an eye on the policy's file, if there is one."""

    def __init__(self, policy: Policy, file: Path | None) -> None:
        self._file = file
        self._version = _version(file)
        self._policy = policy if file is None else yaml_file.read(file, Policy)
        self._applied: dict[tuple[str, str], Applied] = {}

    def of(self, identity: Identity) -> Applied:
        """Return what holds for a caller."""
        who = identity.tenant, identity.key
        if who not in self._applied:
            if len(self._applied) >= MOST_CALLERS:
                self._applied.clear()
            self._applied[who] = self._policy.of(identity)
        return self._applied[who]

    def answering(self, tenant: str) -> Answering:
        """Return by which model and template a tenant's questions are answered."""
        return self._policy.answering(tenant)

    def look(self) -> None:
        """Take in what the file says now; what cannot be used changes nothing and is logged,
        once."""
        if self._file is None or (version := _version(self._file)) == self._version:
            return
        self._version = version
        try:
            self._policy = yaml_file.read(self._file, Policy)
        except yaml_file.FileError as error:
            telemetry.logger().error("the policy is not changed", fault=str(error))
            return
        self._applied.clear()
        telemetry.logger().info("the policy is changed")


@asynccontextmanager
async def open_policies(policy: Policy, file: Path | None) -> AsyncIterator[Policies]:
    """Open the policies, which follow the file. Raises `FileError` for one that cannot be
    used."""
    policies = Policies(policy, file)

    async def follow() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            policies.look()

    if file is None:
        yield policies
        return
    async with beside(follow, "limit policies"):
        yield policies


def _version(file: Path | None) -> tuple[int, int, int] | None:
    """Return what changes with a file's content; None where there is none."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)
