"""Callers of several tenants: what a stack must know of them, and what their calls carry."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quintet_servicekit.identity import Identity
from quintet_servicekit.identity_token import IDENTITY_KEY, Signer
from quintet_servicekit.settings import SigningSettings

_PROVIDER = Ed25519PrivateKey.generate()
_ISSUER, _AUDIENCE = "https://tests.invalid", "quintet-tests"


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a stack whose gateway takes these tests' tokens; its
    provider's keys are in a file of `folder`."""
    public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(_PROVIDER.public_key()))
    file = folder / "jwks.json"
    keys = [public | {"kid": "tests", "alg": "EdDSA", "use": "sig"}]
    file.write_text(json.dumps({"keys": keys}))
    prefix = "QUINTET_GATEWAY_ACCESS__JWT__"
    return {
        f"{prefix}JWKS": str(file),
        f"{prefix}ISSUER": _ISSUER,
        f"{prefix}AUDIENCE": _AUDIENCE,
    }


def gateway_metadata(tenant: str) -> tuple[str, str]:
    """Return what tells the gateway that a call is a tenant's."""
    now = int(time.time())
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": f"somebody of {tenant}",
        "tenant": tenant,
        "scope": "quintet:admin",
        "iat": now,
        "exp": now + 7200,
    }
    token = jwt.encode(claims, _PROVIDER, algorithm="EdDSA", headers={"kid": "tests"})
    return "authorization", f"Bearer {token}"


def service_metadata(state_dir: Path, tenant: str) -> tuple[str, str]:
    """Return what tells the retriever that the stack's gateway calls it for a tenant."""
    signer = Signer(state_dir / "identity.key", SigningSettings(lifetime_seconds=7200))
    return IDENTITY_KEY, signer.token(Identity(tenant, f"somebody of {tenant}"), "retriever")


def metadata(state_dir: Path, tenant: str) -> Mapping[str, tuple[str, str]]:
    """Return both, by the name of the process."""
    return {
        "gateway": gateway_metadata(tenant),
        "retriever": service_metadata(state_dir, tenant),
    }
