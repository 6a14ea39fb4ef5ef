"""The API keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from quintet_gateway.access.models import KeyRecord
from quintet_gateway.database import Database
from quintet_servicekit.identity import Identity, Scope, acting_as
from quintet_servicekit.postgres.database import Operation, Statement

_TABLE = "gateway.api_key"
_KEYS = 0x5155494E54455404
"""Seed of the advisory locks on tenants' keys: "QUINTET" in ASCII, and 4."""
_COLUMNS = sql.SQL("id, tenant, name, scope, hash, created_at, expires_at, revoked_at, replaces")


class KeyStore:
    """Every statement that lists or changes keys names their tenant, and is made for it: for
    another than the caller's, where the operators ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, key_id: str) -> KeyRecord | None:
        """Return the key of that id, whatever its tenant. Raises `ServiceError`."""
        statement = sql.SQL("SELECT {} FROM gateway.find_api_key(%(id)s)").format(_COLUMNS)
        rows = await self._run("SELECT", Statement(statement, {"id": key_id}))
        return rows[0] if rows else None

    async def add(self, key: KeyRecord, *, most: int) -> KeyRecord | None:
        """Store a new key and return it as it is stored; None where the tenant has `most`
        keys that are valid. Of those that have ended, as many of the last are kept."""
        # Those who make keys of a tenant at once count one after the other.
        hold = sql.SQL("SELECT pg_advisory_xact_lock(hashtextextended(%(tenant)s, %(seed)s))")
        forget = sql.SQL(
            "DELETE FROM gateway.api_key WHERE tenant = %(tenant)s AND id IN ("
            " SELECT id FROM gateway.api_key WHERE tenant = %(tenant)s"
            " AND least(expires_at, revoked_at) <= now()"
            " ORDER BY least(expires_at, revoked_at) DESC OFFSET %(most)s)"
        )
        statement = sql.SQL(
            "INSERT INTO gateway.api_key (id, tenant, name, scope, hash, expires_at, replaces)"
            " SELECT %(id)s, %(tenant)s, %(name)s, %(scope)s, %(hash)s, %(expires)s, %(replaces)s"
            " WHERE (SELECT count(*) FROM gateway.api_key WHERE tenant = %(tenant)s"
            "        AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))"
            "   < %(most)s"
            " RETURNING {}"
        ).format(_COLUMNS)
        parameters = {
            "id": key.id,
            "tenant": key.tenant,
            "name": key.name,
            "scope": key.scope.value,
            "hash": key.hash,
            "expires": key.expires,
            "replaces": key.replaces,
            "most": most,
        }
        with acting_as(Identity(key.tenant)):
            rows = await self._run(
                "INSERT",
                Statement(hold, {"tenant": key.tenant, "seed": _KEYS}),
                Statement(forget, {"tenant": key.tenant, "most": most}),
                Statement(statement, parameters),
            )
        return rows[0] if rows else None

    async def page(self, tenant: str, *, after: str, size: int) -> Sequence[KeyRecord]:
        """Return the tenant's keys by id, from the one after `after` on."""
        statement = sql.SQL(
            "SELECT {} FROM gateway.api_key WHERE tenant = %(tenant)s AND id > %(after)s"
            " ORDER BY id LIMIT %(size)s"
        ).format(_COLUMNS)
        parameters = {"tenant": tenant, "after": after, "size": size}
        with acting_as(Identity(tenant)):
            return await self._run("SELECT", Statement(statement, parameters))

    async def end(self, tenant: str, key_id: str, when: datetime) -> KeyRecord | None:
        """Have the tenant's key refused from `when` on, or from earlier if it was to be;
        return it, or None where the tenant has none of that id."""
        statement = sql.SQL(
            "UPDATE gateway.api_key SET revoked_at = least(revoked_at, %(when)s)"
            " WHERE id = %(id)s AND tenant = %(tenant)s RETURNING {}"
        ).format(_COLUMNS)
        parameters = {"id": key_id, "tenant": tenant, "when": when}
        with acting_as(Identity(tenant)):
            rows = await self._run("UPDATE", Statement(statement, parameters))
        return rows[0] if rows else None

    async def _run(self, operation: str, *statements: Statement) -> list[KeyRecord]:
        rows = await self._database.run(Operation(operation, _TABLE), *statements)
        return [_record(row) for row in rows]


def _record(row: dict[str, Any]) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        scope=Scope(row["scope"]),
        hash=bytes(row["hash"]),
        created=row["created_at"],
        expires=row["expires_at"],
        revoked=row["revoked_at"],
        replaces=row["replaces"],
    )
