"""Makes, lists, ends and exchanges API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from quintet_gateway.access.models import KeyRecord
from quintet_servicekit import telemetry
from quintet_servicekit.api_key import ApiKey, new_key
from quintet_servicekit.cache import AwayError
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope

MAX_KEYS = 1_000
"""Valid keys of one tenant."""


class Store(Protocol):
    """Where keys are stored. See `KeyStore`."""

    async def add(self, key: KeyRecord, *, most: int) -> KeyRecord | None: ...
    async def find(self, key_id: str) -> KeyRecord | None: ...
    async def page(self, tenant: str, *, after: str, size: int) -> Sequence[KeyRecord]: ...
    async def end(self, tenant: str, key_id: str, when: datetime) -> KeyRecord | None: ...


class Remembered(Protocol):
    """What is remembered of keys."""

    def forget(self, key_id: str) -> None:
        """Look the key up again."""


class News(Protocol):
    """Tells the other replicas. See `epochs.EpochNews`."""

    async def key_changed(self, key_id: str) -> None:
        """Have the key looked up again. Raises `AwayError` when nobody could be told."""


class Keys:
    """The keys of tenants. Who calls manages those of their own tenant, and the operators
    those of all. `store` is None where there is no database: then there are none; `news` is
    None without a Redis."""

    def __init__(
        self,
        store: Store | None,
        remembered: Remembered,
        news: News | None = None,
        *,
        operators: str,
    ) -> None:
        self._given = store
        self._remembered = remembered
        self._news = news
        self._operators = operators

    async def create(
        self, caller: Identity, tenant: str, *, name: str, scope: Scope, seconds: float | None
    ) -> tuple[ApiKey, KeyRecord]:
        """Make a key that is valid for `seconds`, or for ever; return it with its secret,
        which is known to nobody from then on, and as it is stored."""
        tenant = self._tenant(caller, tenant)
        expires = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        return await self._add(tenant, name=name, scope=scope, expires=expires)

    async def page(
        self, caller: Identity, tenant: str, *, after: str, size: int
    ) -> Sequence[KeyRecord]:
        """Return a tenant's keys by id, from the one after `after` on."""
        return await self._store.page(self._tenant(caller, tenant), after=after, size=size)

    async def revoke(self, caller: Identity, tenant: str, key_id: str) -> KeyRecord:
        """Have a key refused, by all replicas at once; by those that Redis does not reach,
        within seconds.

        Raises `ServiceError` KEY_NOT_FOUND, for another tenant's as well.
        """
        return await self._end(self._tenant(caller, tenant), key_id, datetime.now(UTC))

    async def rotate(
        self, caller: Identity, tenant: str, key_id: str, *, overlap: float
    ) -> tuple[ApiKey, KeyRecord, KeyRecord]:
        """Make a key like that one, which goes on working for `overlap` seconds; return
        the new one, it as it is stored, and the old one.

        Raises `ServiceError` KEY_NOT_FOUND, for another tenant's as well and for one that
        has ended.
        """
        tenant = self._tenant(caller, tenant)
        old, now = await self._store.find(key_id), datetime.now(UTC)
        ends = old.ends() if old else None
        if old is None or old.tenant != tenant or (ends is not None and ends <= now):
            raise _not_found(key_id)
        life = old.expires - old.created if old.expires else None
        key, record = await self._add(
            tenant,
            name=old.name,
            scope=old.scope,
            expires=now + life if life else None,
            replaces=old.id,
        )
        return key, record, await self._end(tenant, key_id, now + timedelta(seconds=overlap))

    async def _add(
        self,
        tenant: str,
        *,
        name: str,
        scope: Scope,
        expires: datetime | None,
        replaces: str = "",
    ) -> tuple[ApiKey, KeyRecord]:
        key = new_key()
        wanted = KeyRecord(
            key.id, tenant, name, scope, key.hash(), datetime.now(UTC), expires, replaces=replaces
        )
        record = await self._store.add(wanted, most=MAX_KEYS)
        if record is None:
            raise ServiceError(
                Reason.BATCH_TOO_LARGE,
                f"the tenant has {MAX_KEYS} valid keys; revoke some first",
                metadata={"limit": str(MAX_KEYS), "actual": str(MAX_KEYS)},
            )
        self._remembered.forget(key.id)
        telemetry.logger().info("key made", key_id=key.id, tenant=tenant, scope=scope.value)
        return key, record

    async def _end(self, tenant: str, key_id: str, when: datetime) -> KeyRecord:
        record = await self._store.end(tenant, key_id, when)
        if record is None:
            raise _not_found(key_id)
        self._remembered.forget(key_id)
        telemetry.logger().info("key ends", key_id=key_id, tenant=tenant, at=when.isoformat())
        if self._news is not None:
            try:
                await self._news.key_changed(key_id)
            except AwayError:
                telemetry.logger().warning("other replicas see a key's end later", key_id=key_id)
        return record

    def _tenant(self, caller: Identity, wanted: str) -> str:
        if not wanted or wanted == caller.tenant:
            return caller.tenant
        if caller.tenant != self._operators:
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                "keys of another tenant are the operators' to manage",
                metadata={"needed": f"admin of {self._operators}", "granted": caller.scope.value},
            )
        return wanted

    @property
    def _store(self) -> Store:
        if self._given is None:
            raise ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "the gateway has no database, where keys are stored",
                metadata={"dependency": "postgresql"},
            )
        return self._given


def _not_found(key_id: str) -> ServiceError:
    return ServiceError(Reason.KEY_NOT_FOUND, "there is no such key", metadata={"key_id": key_id})
