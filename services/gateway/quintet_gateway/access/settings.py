"""Settings of who may ask. Part of the gateway's own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from quintet_servicekit.identity import DEFAULT_TENANT

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
"""Signatures by a private key. Shared secrets and "none" are not among them."""


class JwtSettings(BaseModel):
    """Which tokens of an identity provider are taken. Part of the access settings."""

    model_config = ConfigDict(frozen=True)

    jwks: str = ""
    """URL (https, or http of this machine) or path of the provider's public keys, a JWKS.
    Empty: no tokens are taken."""
    issuer: str = ""
    """The `iss` that they must have. Needed where `jwks` is set."""
    audience: str = ""
    """The `aud` that they must have. Needed where `jwks` is set."""
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    """Signatures that are taken, whatever the token or the key says."""
    leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far the provider's clock may be apart from ours."""
    tenant_claim: str = "tenant"
    """Claim with the tenant's name. A token without it is refused."""
    scope_claim: str = "scope"
    """Claim with the scopes: words in one text, or a list."""
    scope_prefix: str = "quintet:"
    """What our scopes begin with there: quintet:read, quintet:write, quintet:admin."""
    renew_seconds: float = Field(300.0, ge=1, le=86_400)
    """How often the keys are fetched anew. A token of a key that is not known has them
    fetched at once, but not more often than every `least_seconds`."""
    least_seconds: float = Field(10.0, ge=0, le=3600)
    """Least time between two fetches."""
    fetch_seconds: float = Field(5.0, gt=0, le=60)
    """How long a fetch may take."""
    keep_seconds: float = Field(86_400.0, ge=60, le=30 * 86_400)
    """How long keys are used while no new ones can be fetched: a provider's outage over
    night must not end all calls."""
    max_tokens: int = Field(10_000, ge=1, le=1_000_000)
    """Tokens that are remembered as verified, some 500 bytes each."""


class AccessSettings(BaseModel):
    """Who may ask. Part of the gateway's own settings."""

    model_config = ConfigDict(frozen=True)

    mode: Literal["keys", "open"] = "keys"
    """"keys": each call carries an API key, or a token. "open": one without is the default
    tenant's, with every right; whoever reaches the port can delete everything."""
    key_file: Path | None = None
    """File with API keys, one a line, that are the operators', with every right: the first
    key of an installation, by which others are made. Read anew when it changes."""
    operators: str = DEFAULT_TENANT
    """Tenant whose admin keys make and revoke keys of every tenant."""
    fresh_seconds: float = Field(15.0, gt=0, le=3600)
    """How long a key is used without being looked up again: a key that is revoked on another
    replica of which Redis brings no news is refused within this time. As often who calls is
    asked again in a stream."""
    unknown_seconds: float = Field(5.0, ge=0, le=3600)
    """How long a key that is not there is refused without a look-up."""
    outage_seconds: float = Field(3600.0, ge=0, le=86_400)
    """How long a known key goes on working while PostgreSQL is away. An hour of outage is
    survived; a key that is revoked by hand in a restored database is not used for longer."""
    max_keys: int = Field(10_000, ge=1, le=1_000_000)
    """Keys that are remembered, some 500 bytes each, and as many unknown ids."""
    max_lookups: int = Field(32, ge=1, le=1_000)
    """Look-ups under way at once beyond which no key is looked up that is not known: who makes
    keys up must not have the database to himself."""
    jwt: JwtSettings = JwtSettings()
    """Tokens of an identity provider, for instance `QUINTET_GATEWAY_ACCESS__JWT__JWKS`."""

    @field_validator("jwt")
    @classmethod
    def _complete(cls, jwt: JwtSettings) -> JwtSettings:
        if jwt.jwks and not (jwt.issuer and jwt.audience):
            raise ValueError("tokens are taken of one issuer and for one audience: name both")
        return jwt
