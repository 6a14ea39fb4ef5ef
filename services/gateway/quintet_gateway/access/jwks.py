"""The public keys of an identity provider, fetched in the background and kept for a while."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from quintet_gateway.access.settings import JwtSettings
from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.errors import Reason, ServiceError

MAX_BYTES = 2**20
"""Largest set of keys that is read."""
_PIECE_BYTES = 2**16
MAX_KEYS = 64
_LOCAL = ("localhost", "127.0.0.1", "::1")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where the keys are is a setting, and nobody else's to say."""

    def redirect_request(self, *_: object) -> None:
        return None


class JwksKeys:
    """The keys of `settings.jwks`, by their names. `changed` is called when they changed.

    Raises `ValueError` for an address that is neither a file, nor https, nor this machine's.
    """

    def __init__(self, settings: JwtSettings, changed: Callable[[], None] = lambda: None) -> None:
        address = urlsplit(settings.jwks)
        if address.scheme in ("http", "https"):
            if address.scheme == "http" and address.hostname not in _LOCAL:
                raise ValueError("the keys of a provider are fetched by https")
        elif address.scheme not in ("", "file"):
            raise ValueError("the keys of a provider are at an https address, or in a file")
        self._settings = settings
        self._is_file = address.scheme in ("", "file")
        self._changed = changed
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._document = b""
        self._fetched_at: float | None = None
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[bytes] | None = None

    async def get(self, name: str) -> jwt.PyJWK | None:
        """Return the key of that name. One that is not known has the keys fetched anew,
        at most every `least_seconds`, and by one call for all that wait.

        Raises `ServiceError` DEPENDENCY_UNAVAILABLE while there are none, or none that are
        young enough.
        """
        if not self._is_usable() or self._found(name) is None:
            await self._fetch_once()
        if not self._is_usable():
            raise ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "the identity provider's keys cannot be fetched",
                metadata={"dependency": "identity provider"},
                retry_after=1.0,
            )
        return self._found(name)

    def _found(self, name: str) -> jwt.PyJWK | None:
        if not name and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _is_usable(self) -> bool:
        fetched = self._fetched_at
        return fetched is not None and time.monotonic() - fetched < self._settings.keep_seconds

    async def _fetch_once(self) -> None:
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried_at < self._settings.least_seconds:
                return
            self._fetching = asyncio.create_task(self._fetch(), name="fetch keys")
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.fetch_seconds + 1):
                document = await self._read_once()
            keys = _parsed(document)
        except (OSError, ValueError, TimeoutError, HTTPException, RecursionError) as error:
            telemetry.logger().warning(
                "the identity provider's keys cannot be fetched", cause=type(error).__name__
            )
            return
        self._fetched_at = time.monotonic()
        if document != self._document:
            self._document, self._keys = document, keys
            self._changed()

    async def _read_once(self) -> bytes:
        """Return the document; a provider that is slow holds one thread, however often its
        keys are wanted."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read))
            # Nobody may be waiting any more when it fails.
            self._reading.add_done_callback(asyncio.Future.exception)
        return await asyncio.shield(self._reading)

    def _read(self) -> bytes:
        where = self._settings.jwks
        if self._is_file:
            with Path(where.removeprefix("file://")).open("rb") as file:
                document = file.read(MAX_BYTES + 1)
        else:
            opener = urllib.request.build_opener(_NoRedirects)
            until = time.monotonic() + self._settings.fetch_seconds
            document = b""
            with opener.open(where, timeout=self._settings.fetch_seconds) as response:
                # The timeout is of each piece: all of them have as long together.
                while len(document) <= MAX_BYTES and (piece := response.read1(_PIECE_BYTES)):
                    document += piece
                    if time.monotonic() > until:
                        raise TimeoutError("the provider is too slow")
        if len(document) > MAX_BYTES:
            raise ValueError("more than a set of keys")
        return document

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Fetch the keys every `renew_seconds` while the context lasts."""

        async def renew() -> None:
            while True:
                await self._fetch_once()
                await asyncio.sleep(self._settings.renew_seconds)

        try:
            async with beside(renew, "renew keys"):
                yield
        finally:
            if self._fetching is not None:
                await asyncio.gather(self._fetching, return_exceptions=True)


def _parsed(document: bytes) -> Mapping[str, jwt.PyJWK]:
    told = json.loads(document)
    keys = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS:
        raise ValueError("no set of keys")
    found: dict[str, jwt.PyJWK] = {}
    for it in keys:
        # Those for encryption, and shared secrets, verify nothing.
        if isinstance(it, dict) and it.get("use", "sig") == "sig" and it.get("kty") != "oct":
            # A provider may have keys of kinds that nobody here reads, beside others.
            with suppress(jwt.PyJWTError, ValueError, TypeError):
                found[str(it.get("kid", ""))] = jwt.PyJWK.from_dict(it)
    if not found:
        raise ValueError("none that can be used")
    return found
