"""Tokens of an identity provider: JWTs that its published keys (JWKS) verify."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Any, Protocol

import jwt

from quintet_gateway.access import scopes
from quintet_gateway.access.ring import refused
from quintet_gateway.access.settings import JwtSettings
from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope, is_tenant

MAX_SUBJECT_CHARS = 255
"""Of ASCII, as OpenID Connect has it."""
MAX_TOKEN_CHARS = 6_000
"""Longest token that is read; a call's metadata have 8 KiB in all."""


class Keys(Protocol):
    """The provider's public keys."""

    async def get(self, name: str) -> jwt.PyJWK | None:
        """Return the key of that name ("" for one that stands alone); None where there is
        none. Raises `ServiceError` when that cannot be found out."""
        ...


class ProviderTokens:
    """Tells whose a token is. One that was verified is remembered until it ends, by its
    hash."""

    def __init__(self, keys: Keys, settings: JwtSettings) -> None:
        self._keys = keys
        self._settings = settings
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()

    async def identify(self, token: str) -> Identity:
        """Return whose it is.

        Raises `ServiceError` UNAUTHENTICATED for one that is not valid, PERMISSION_DENIED
        for one that grants no scope of ours, DEPENDENCY_UNAVAILABLE without the keys.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise refused("the token is too long")
        digest = hashlib.blake2b(token.encode(), digest_size=32).digest()
        if found := self._known.get(digest):
            identity, until = found
            if time.time() < until:
                self._known.move_to_end(digest)
                return identity
            del self._known[digest]
        claims = await self._claims(token)
        identity = self._identity(claims)
        self._known[digest] = identity, float(claims["exp"]) + self._settings.leeway_seconds
        if len(self._known) > self._settings.max_tokens:
            self._known.popitem(last=False)
        return identity

    def forget(self) -> None:
        """Verify all tokens anew: the provider's keys changed."""
        self._known.clear()

    async def _claims(self, token: str) -> dict[str, Any]:
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in settings.algorithms:
                raise jwt.InvalidAlgorithmError("not one of those that are taken")
            key = await self._keys.get(str(header.get("kid", "")))
            if key is None:
                raise jwt.InvalidKeyError("not one of the provider's")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[
                    it for it in settings.algorithms if it == (key.algorithm_name or header["alg"])
                ],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            # A provider's mistakes: a time that no number of ours can hold.
            float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            # The library's own messages may quote claims.
            telemetry.logger().info("token refused", cause=type(error).__name__)
            expired = isinstance(error, jwt.ExpiredSignatureError)
            raise refused("the token is expired" if expired else "the token is not valid") from None
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        settings = self._settings
        subject = claims["sub"]
        # It becomes part of keys, rows and our own tokens. Cut off, two would be one.
        is_plain = subject.isascii() and subject.isprintable()
        if not is_plain or not 1 <= len(subject) <= MAX_SUBJECT_CHARS:
            raise refused(f"the token's subject is not 1 to {MAX_SUBJECT_CHARS} of ASCII")
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str) or not is_tenant(tenant):
            raise refused(f"the token's claim {settings.tenant_claim} names no tenant")
        granted = claims.get(settings.scope_claim, "")
        words = granted.split() if isinstance(granted, str) else granted
        names = {str(it) for it in words} if isinstance(words, list) else set()
        held = [it for it in Scope if f"{settings.scope_prefix}{it}" in names]
        if not held:
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                f"the token grants none of {', '.join(settings.scope_prefix + it for it in Scope)}",
                metadata={"needed": Scope.READ.value, "granted": ""},
            )
        scope = max(held, key=scopes.rank)
        return Identity(tenant, subject, scope)
