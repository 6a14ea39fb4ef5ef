"""Tells by a caller's credential who calls, and whether they may call that method."""

from __future__ import annotations

from typing import Literal, Protocol

from quintet_gateway.access import scopes
from quintet_gateway.access.ring import KeyRing, refused
from quintet_servicekit import api_key
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import ANYBODY, Identity
from quintet_servicekit.incoming import Metadata

HEADER = "authorization"
_SCHEME = "bearer "


class Tokens(Protocol):
    """Tokens of an identity provider."""

    async def identify(self, token: str) -> Identity:
        """Return whose it is. Raises `ServiceError`."""
        ...


class Gatekeeper:
    """Reads `authorization: Bearer …`: an API key, or a token where `tokens` takes them.

    In the mode "open" a call without it is the default tenant's. One with a credential that
    is not valid is refused in either mode: it is a mistake.
    """

    def __init__(
        self, mode: Literal["keys", "open"], ring: KeyRing, tokens: Tokens | None = None
    ) -> None:
        self._is_open = mode == "open"
        self._ring = ring
        self._tokens = tokens

    async def identify(self, method: str, metadata: Metadata) -> Identity:
        """Return who calls.

        Raises `ServiceError` UNAUTHENTICATED, PERMISSION_DENIED for a method beyond the
        credential's scope, or DEPENDENCY_UNAVAILABLE while that cannot be found out.
        """
        identity = await self._identity(metadata)
        needed = scopes.needed(method)
        if not scopes.includes(identity.scope, needed):
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                f"this needs the scope {needed}, and the credential has {identity.scope}",
                metadata={"needed": needed.value, "granted": identity.scope.value},
            )
        return identity

    async def _identity(self, metadata: Metadata) -> Identity:
        values = [value for key, value in metadata if key == HEADER]
        if not values:
            if self._is_open:
                return ANYBODY
            raise refused("the call carries no API key")
        [value, *others] = values
        if others or not isinstance(value, str) or not value[: len(_SCHEME)].lower() == _SCHEME:
            raise refused("the authorization must be one: Bearer and an API key")
        credential = value[len(_SCHEME) :].strip()
        if credential.startswith(api_key.PREFIX):
            key = api_key.parsed(credential)
            if key is None:
                raise refused("the API key is mistyped or cut off: its checksum is wrong")
            return await self._ring.identify(key)
        if self._tokens is None:
            raise refused(f"the credential is no API key, which begins with {api_key.PREFIX}")
        return await self._tokens.identify(credential)
