"""The identity between gateway and services: a signed token in each call's metadata.

A JWT with an Ed25519 signature. One is made for each identity and used for half a minute, and
each service verifies it once, so that a call costs two look-ups. docs/security.md says what it
protects from.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import ANYBODY, Identity, Scope, is_tenant
from quintet_servicekit.incoming import Metadata
from quintet_servicekit.key_files import (
    KeyFileError,
    PublicKeys,
    WatchedFiles,
    key_id,
    read_private_key,
)
from quintet_servicekit.settings import IdentitySettings, SigningSettings

IDENTITY_KEY = "quintet-identity"
"""Metadata with the token."""
AUDIENCE = "quintet-services"
ISSUER = "quintet-gateway"
ALGORITHM = "EdDSA"
MAX_TOKENS = 10_000
"""Tokens that are remembered, some 700 bytes each; the least recently used goes."""
MAX_TOKEN_CHARS = 2_048


class Signer:
    """Vouches for identities. Raises `KeyFileError` when its key cannot be read at first."""

    def __init__(self, key: Path, settings: SigningSettings) -> None:
        self._file = key
        self._watched = WatchedFiles(key)
        self._settings = settings
        self._tokens: OrderedDict[tuple[Identity, str], tuple[str, float]] = OrderedDict()
        self._key = self._read()

    def token(self, identity: Identity, service: str) -> str:
        """Return a token that `service` ("retriever"), and no other, accepts for
        `lifetime_seconds` less `reuse_seconds` at least."""
        now, wanted = time.monotonic(), (identity, service)
        if found := self._tokens.get(wanted):
            token, until = found
            if now < until:
                self._tokens.move_to_end(wanted)
                return token
        self._refresh()
        token = self._signed(identity, service)
        self._tokens[wanted] = token, now + self._settings.reuse_seconds
        self._tokens.move_to_end(wanted)
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return token

    def _read(self) -> Ed25519PrivateKey:
        return read_private_key(self._file)

    def _refresh(self) -> None:
        try:
            self._key = self._watched.changed(self._read) or self._key
        except (KeyFileError, OSError) as error:
            telemetry.logger().error("the signing key cannot be read anew", cause=str(error))

    def _signed(self, identity: Identity, service: str) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": [AUDIENCE, audience_of(service)],
            "iat": now,
            "exp": now + int(self._settings.lifetime_seconds),
            "sub": identity.key,
            "tenant": identity.tenant,
            "scope": identity.scope.value,
        }
        headers = {"kid": key_id(self._key.public_key())}
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=headers)


class TokenVerifier:
    """Tells by its token whom a call to `service` is made for.

    Raises `KeyFileError` when the public keys cannot be read at first.
    """

    def __init__(self, settings: IdentitySettings, service: str) -> None:
        self._settings = settings
        self._audience = audience_of(service)
        self._keys = PublicKeys(settings.public_keys) if settings.public_keys else None
        self._version = 0
        self._known: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    async def identify(self, method: str, metadata: Metadata) -> Identity:
        """Return it, whatever `method` is called.

        Raises `ServiceError` UNAUTHENTICATED for a call without a token, where one is
        required, and for one whose token is not valid.
        """
        tokens = [value for key, value in metadata if key == IDENTITY_KEY]
        if not tokens or self._keys is None:
            if self._settings.required:
                raise _refused("carries no identity: services are called through the gateway")
            return ANYBODY
        [token, *others] = tokens
        if others or not isinstance(token, str):
            raise _refused("carries more than one identity")
        return self._verified(token, self._keys)

    def _verified(self, token: str, keys: PublicKeys) -> Identity:
        keys.refresh()
        if keys.version != self._version:
            # Those of a key that was taken away must not outlast it.
            self._known.clear()
            self._version = keys.version
        if found := self._known.get(token):
            identity, until = found
            if time.time() < until:
                self._known.move_to_end(token)
                return identity
            del self._known[token]
        identity, until = self._read(token, keys)
        self._known[token] = identity, until
        if len(self._known) > MAX_TOKENS:
            self._known.popitem(last=False)
        return identity

    def _read(self, token: str, keys: PublicKeys) -> tuple[Identity, float]:
        leeway = self._settings.leeway_seconds
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise jwt.InvalidTokenError("too long")
            key = keys.get(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                raise jwt.InvalidTokenError("of an unknown key")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=leeway,
                options={"require": ["exp", "iat", "aud", "iss", "sub", "tenant", "scope"]},
            )
            named = set(claims["aud"]) - {AUDIENCE} if isinstance(claims["aud"], list) else set()
            # Gateways of releases before name none.
            if named and self._audience not in named:
                raise jwt.InvalidAudienceError("for another service")
            tenant, subject = str(claims["tenant"]), str(claims["sub"])
            if not is_tenant(tenant):
                raise jwt.InvalidTokenError("of an impossible tenant")
            identity = Identity(tenant, subject, Scope(claims["scope"]))
        except (jwt.PyJWTError, ValueError) as error:
            telemetry.logger().warning("identity refused", cause=type(error).__name__)
            raise _refused("carries an identity that is not valid, or not any more") from error
        return identity, float(claims["exp"]) + leeway


def audience_of(service: str) -> str:
    """Return what names one service in a token: who breaks into another cannot use there
    what it was sent."""
    return f"{AUDIENCE}/{service}"


def _refused(what: str) -> ServiceError:
    return ServiceError(Reason.UNAUTHENTICATED, f"the call {what}")
