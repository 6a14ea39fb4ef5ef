"""Applies each write once, however often it is asked for.

The transaction of a write that has a key first claims the key and last keeps with it
what it returns. One that finds the key taken changes nothing and returns what was kept;
while the other is under way, it waits for it. As AIP-155 (request ids) and Stripe's
idempotency keys do it; docs/adr/0009.
"""

from __future__ import annotations

from typing import Any

from psycopg import errors, sql
from psycopg.rows import DictRow

from quintet_retriever.database import Database
from quintet_retriever.models import RequestKey
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement

_CLAIM = sql.SQL(
    "INSERT INTO retriever.request (id, item, digest)"
    " VALUES (%(request)s::uuid, %(item)s, %(digest)s)"
)
_KEPT = sql.SQL(
    "SELECT digest, result FROM retriever.request WHERE id = %(request)s::uuid AND item = %(item)s"
)
_CONSTRAINT = "request_pkey"


def keep(rows: str) -> sql.Composed:
    """Return the CTE of a write's last statement that keeps the row of the CTE `rows`, if
    it has one, under the key in `key_parameters`."""
    return sql.SQL(
        "kept AS (UPDATE retriever.request AS r SET result = to_jsonb({rows}) FROM {rows}"
        " WHERE r.id = %(request)s::uuid AND r.item = %(item)s)"
    ).format(rows=sql.Identifier(rows))


def key_parameters(key: RequestKey | None) -> dict[str, Any]:
    """Return the parameters that `keep` needs; without a key it keeps nothing."""
    return {"request": key.id if key else None, "item": key.item if key else None}


async def run_once(
    database: Database, operation: Operation, key: RequestKey | None, *statements: Statement
) -> list[DictRow]:
    """Run a write as `Database.run` does, or return what the one with this key returned.

    Values that JSON does not have come back as text. Raises `ServiceError`
    REQUEST_ID_REUSED when that one was another request.
    """
    if key is None:
        return await database.run(operation, *statements)
    parameters = key_parameters(key)
    claim = Statement(_CLAIM, parameters | {"digest": key.digest})
    try:
        return await database.run(operation, claim, *statements)
    except errors.UniqueViolation as error:
        if error.diag.constraint_name != _CONSTRAINT:
            raise
    rows = await database.run(Operation("SELECT", "request"), Statement(_KEPT, parameters))
    if not rows:
        raise ServiceError(Reason.CONFLICT, "the request's key has just expired")
    if bytes(rows[0]["digest"]) != key.digest:
        raise ServiceError(
            Reason.REQUEST_ID_REUSED,
            "another request has used this request_id",
            metadata={"request_id": key.id},
        )
    return [rows[0]["result"]] if rows[0]["result"] is not None else []
