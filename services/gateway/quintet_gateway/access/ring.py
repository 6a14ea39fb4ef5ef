"""The API keys as a call needs them: remembered, so that no call waits for the database."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from quintet_gateway.access.models import KeyRecord
from quintet_gateway.access.settings import AccessSettings
from quintet_servicekit import telemetry
from quintet_servicekit.api_key import ApiKey, parsed
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope
from quintet_servicekit.key_files import KeyFileError, WatchedFiles

PATIENCE_SECONDS = 0.25
"""How long a call waits for a known key's look-up; a look-up takes two milliseconds."""
AWAY_SECONDS = 1.0
"""How long no call waits after that."""


class KeySource(Protocol):
    """Where keys are stored."""

    async def find(self, key_id: str) -> KeyRecord | None:
        """Return the key of that id, whatever its tenant. Raises `ServiceError`."""
        ...


class KeyRing:
    """Tells whose a key is.

    A key that was looked up is remembered, and looked up again behind the calls' back before
    that is too old; while the database is away it goes on working for a bounded time. Ids
    that are not there are remembered apart, so that nobody's guesses displace keys.
    """

    def __init__(self, source: KeySource | None, settings: AccessSettings) -> None:
        self._source = source
        self._settings = settings
        self._known: OrderedDict[str, tuple[KeyRecord, float]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._away_until = 0.0
        self._doubted_at = -math.inf
        self.changes = 0
        """How often anything was forgotten or doubted."""
        self._operators = OperatorKeys(settings.key_file) if settings.key_file else None

    async def identify(self, key: ApiKey) -> Identity:
        """Return whose the key is.

        Raises `ServiceError` UNAUTHENTICATED for one that is not there, or whose secret is
        wrong, with the same message; for one that is expired or revoked; and
        DEPENDENCY_UNAVAILABLE when that cannot be found out.
        """
        if self._operators is not None and self._operators.holds(key):
            return Identity(self._settings.operators, key.id, Scope.ADMIN)
        record = await self._record(key.id)
        # Compared in either case, so that the time it takes says nothing.
        is_right = hmac.compare_digest(key.hash(), record.hash if record else b"\0" * 32)
        if record is None or not is_right:
            raise refused("the API key is not known")
        ends = record.ends()
        if ends is not None and ends <= datetime.now(UTC):
            what = "was revoked" if record.revoked == ends else "is expired"
            raise refused(f"the API key {what}")
        return Identity(record.tenant, record.id, record.scope)

    def forget(self, key_id: str) -> None:
        """Look the key up again at the next call."""
        self.changes += 1
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)
        # One that is under way may have read what was before.
        self._lookups.pop(key_id, None)

    def doubt(self) -> None:
        """Look every key up again at its next call: some may have been revoked and not told
        of. With the database away they go on working as before."""
        self.changes += 1
        self._doubted_at = time.monotonic()
        # Those under way may have read what was before.
        self._lookups.clear()

    async def aclose(self) -> None:
        """End the look-ups under way."""
        for task in self._lookups.values():
            task.cancel()
        await asyncio.gather(*self._lookups.values(), return_exceptions=True)

    async def _record(self, key_id: str) -> KeyRecord | None:
        now = time.monotonic()
        if found := self._known.get(key_id):
            record, read_at = found
            age = now - read_at
            self._known.move_to_end(key_id)
            if age < self._settings.fresh_seconds and read_at > self._doubted_at:
                if age > self._settings.fresh_seconds / 2:
                    self._begin(key_id)
                return record
            return await self._renewed(record, age)
        if now - self._unknown.get(key_id, -1e9) < self._settings.unknown_seconds:
            return None
        try:
            return await self._looked_up(key_id)
        except ServiceError as error:
            raise _undecided() from error

    async def _renewed(self, record: KeyRecord, age: float) -> KeyRecord | None:
        """Return a key that was looked up too long ago as it is now, or as it was while the
        database does not answer."""
        survives = age < self._settings.outage_seconds
        if survives and time.monotonic() < self._away_until:
            self._begin(record.id)
            return record
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if survives else None):
                return await self._looked_up(record.id)
        except (ServiceError, TimeoutError) as error:
            if not survives:
                raise _undecided() from error
            self._away_until = time.monotonic() + AWAY_SECONDS
            return record

    async def _looked_up(self, key_id: str) -> KeyRecord | None:
        task = self._begin(key_id)
        if task is None:
            raise ServiceError(Reason.OVERLOADED, "too many keys are being looked up")
        # Others may wait for it as well.
        return await asyncio.shield(task)

    def _begin(self, key_id: str) -> asyncio.Task[KeyRecord | None] | None:
        task = self._lookups.get(key_id)
        if task is None:
            # A known key waits for no guesses: while they lasted it could not be revoked.
            is_guess = key_id not in self._known
            if is_guess and len(self._lookups) >= self._settings.max_lookups:
                return None
            task = asyncio.create_task(self._look_up(key_id), name="key look-up")
            self._lookups[key_id] = task
            task.add_done_callback(lambda it: self._ended(key_id, it))
        return task

    def _ended(self, key_id: str, task: asyncio.Task[KeyRecord | None]) -> None:
        if self._lookups.get(key_id) is task:
            del self._lookups[key_id]
        if not task.cancelled():
            # Looked at here, because who began it may not have waited.
            task.exception()

    async def _look_up(self, key_id: str) -> KeyRecord | None:
        if self._source is None:
            return None
        record = await self._source.find(key_id)
        if self._lookups.get(key_id) is not asyncio.current_task():
            return record  # it was changed meanwhile
        now, most = time.monotonic(), self._settings.max_keys
        if record is None:
            self._known.pop(key_id, None)
            self._unknown[key_id] = now
            if len(self._unknown) > most:
                self._unknown.popitem(last=False)
        else:
            self._unknown.pop(key_id, None)
            self._known[key_id] = record, now
            self._known.move_to_end(key_id)
            if len(self._known) > most:
                self._known.popitem(last=False)
        return record


class OperatorKeys:
    """The keys of a file. Raises `KeyFileError` when it cannot be read at first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._watched = WatchedFiles(file)
        self._hashes = self._watched.changed(self._read) or {}

    def holds(self, key: ApiKey) -> bool:
        """Whether the key is one of them."""
        try:
            self._hashes = self._watched.changed(self._read) or self._hashes
        except (KeyFileError, OSError) as error:
            telemetry.logger().error("the operators' keys cannot be read anew", cause=str(error))
        expected = self._hashes.get(key.id)
        return expected is not None and hmac.compare_digest(expected, key.hash())

    def _read(self) -> dict[str, bytes]:
        try:
            lines = self._file.read_text(encoding="ascii").split()
        except (OSError, ValueError) as error:
            raise KeyFileError(f"{self._file} cannot be read") from error
        keys = [parsed(line) for line in lines]
        if not keys or None in keys:
            raise KeyFileError(f"{self._file} must hold API keys, one a line")
        return {key.id: key.hash() for key in keys if key is not None}


def refused(message: str) -> ServiceError:
    """Return the error of a credential that is not taken."""
    return ServiceError(
        Reason.UNAUTHENTICATED, message, metadata={"expected": "authorization: Bearer <API key>"}
    )


def _undecided() -> ServiceError:
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "whether the API key is valid cannot be found out now",
        metadata={"dependency": "postgresql"},
        retry_after=1.0,
    )
