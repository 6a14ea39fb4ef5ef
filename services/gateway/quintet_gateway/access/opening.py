"""Puts together who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from quintet_gateway.access.gatekeeper import Gatekeeper
from quintet_gateway.access.jwks import JwksKeys
from quintet_gateway.access.keys import Keys
from quintet_gateway.access.ring import KeyRing
from quintet_gateway.access.store import KeyStore
from quintet_gateway.access.tokens import ProviderTokens
from quintet_gateway.database import Database
from quintet_gateway.settings import Settings
from quintet_servicekit import telemetry
from quintet_servicekit.epochs import EpochNews


class AccessError(Exception):
    """Settings by which nobody could ask, or tenants could not be told apart."""


@dataclass(frozen=True)
class Access:
    """What was put together."""

    gatekeeper: Gatekeeper
    keys: Keys
    ring: KeyRing


@asynccontextmanager
async def open_access(
    settings: Settings, database: Database | None, news: EpochNews | None
) -> AsyncIterator[Access]:
    """Yield who may ask, by the settings; keys are in `database`, and `news` tell of their
    end.

    Raises `AccessError` for settings that cannot be meant, and `KeyFileError`.
    """
    access = settings.access
    if access.mode == "open":
        telemetry.logger().warning(
            "OPEN: whoever reaches this port may ask and delete everything without a key; "
            "to ask for keys, set QUINTET_GATEWAY_ACCESS__MODE=keys"
        )
    elif settings.signing.key is None:
        raise AccessError(
            "without QUINTET_GATEWAY_SIGNING__KEY the services cannot tell tenants apart"
        )
    elif database is None and access.key_file is None and not access.jwt.jwks:
        raise AccessError(
            "nobody could ask: set QUINTET_GATEWAY_DATABASE_URL, …_ACCESS__KEY_FILE or "
            "…_ACCESS__JWT__JWKS; or ask for QUINTET_GATEWAY_ACCESS__MODE=open"
        )
    store = KeyStore(database) if database is not None else None
    async with AsyncExitStack() as stack:
        ring = KeyRing(store, access)
        stack.push_async_callback(ring.aclose)
        tokens = None
        if access.jwt.jwks:
            provider = JwksKeys(access.jwt, lambda: tokens.forget() if tokens else None)
            tokens = ProviderTokens(provider, access.jwt)
            await stack.enter_async_context(provider.kept_fresh())
        yield Access(
            Gatekeeper(access.mode, ring, tokens),
            Keys(store, ring, news, operators=access.operators),
            ring,
        )
