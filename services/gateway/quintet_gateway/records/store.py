"""The table of records; see `migrations/0001_answers.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet_gateway.database import Database
from quintet_servicekit.postgres import tenancy
from quintet_servicekit.postgres.database import Operation, Statement

_INSERT = Operation("INSERT", "answer", background=True)
_SELECT = Operation("SELECT", "answer")
_RENEW = Operation("RENEW", "answer", background=True)
_TRIM = Operation("DELETE", "answer", background=True)


class RefusedError(Exception):
    """The database does not take these rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is stored, and whose it is."""

    id: UUID
    tenant: str
    key: str
    record: bytes


class PostgresRecords:
    """Records of answers in PostgreSQL. All methods raise `ServiceError` as
    `Database.run` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[Row]) -> None:
        """Add records, of whichever tenants; one that is there already stays as it is.
        Raises `RefusedError`."""
        of_tenant: dict[str, list[Row]] = {}
        for row in rows:
            of_tenant.setdefault(row.tenant, []).append(row)
        statements = []
        for tenant, its in of_tenant.items():
            # Each tenant's rows are taken from that tenant alone.
            statements.append(
                _statement(
                    "SELECT set_config(%(setting)s, %(tenant)s, true)",
                    setting=tenancy.SETTING,
                    tenant=tenant,
                )
            )
            statements.append(
                _statement(
                    "INSERT INTO gateway.answer (id, tenant, key, record)"
                    " SELECT id, %(tenant)s, key, record FROM unnest("
                    # As binary: as text a record is twice as long, and escaped, which holds
                    # the event loop up.
                    "%(ids)b::uuid[], %(keys)b::text[], %(records)b::bytea[])"
                    " AS it (id, key, record) ON CONFLICT DO NOTHING",
                    tenant=tenant,
                    ids=[row.id for row in its],
                    keys=[row.key for row in its],
                    records=[row.record for row in its],
                )
            )
        try:
            await self._database.run(_INSERT, *statements)
        except psycopg.Error as error:
            raise RefusedError from error

    async def find(self, tenant: str, answer_id: UUID) -> explain_pb.AnswerRecord | None:
        """Return a tenant's record of that id."""
        return _record(
            await self._database.run(
                _SELECT,
                _statement(
                    "SELECT record FROM gateway.answer WHERE id = %(id)s AND tenant = %(tenant)s",
                    id=answer_id,
                    tenant=tenant,
                ),
            )
        )

    async def newest(self, tenant: str, key: str) -> explain_pb.AnswerRecord | None:
        """Return a tenant's newest record of those of that key."""
        return _record(
            await self._database.run(
                _SELECT,
                _statement(
                    "SELECT record FROM gateway.answer WHERE tenant = %(tenant)s"
                    " AND key = %(key)s ORDER BY id DESC LIMIT 1",
                    tenant=tenant,
                    key=key,
                ),
            )
        )

    async def renew_days(self, kept: int, *, waits: bool) -> None:
        """Make the partitions of these days, and drop those that are `kept` days old.
        One replica does it; another one waits for that only if it `waits`."""
        await self._database.run(
            _RENEW,
            _statement(
                "SELECT gateway.renew_answer_days(%(kept)s, %(waits)s)", kept=kept, waits=waits
            ),
        )

    async def trim(self, most: int, at_once: int) -> int:
        """Drop the oldest records of tenants that have more than `most`, `at_once` of them;
        return how many. One replica does it at a time."""
        (row,) = await self._database.run(
            _TRIM,
            _statement(
                "SELECT gateway.trim_answers(%(most)s, %(at_once)s) AS dropped",
                most=most,
                at_once=at_once,
            ),
        )
        return int(row["dropped"])


def _statement(text: Any, **parameters: Any) -> Statement:
    return Statement(sql.SQL(text), parameters)


def _record(rows: Sequence[DictRow]) -> explain_pb.AnswerRecord | None:
    return explain_pb.AnswerRecord.FromString(rows[0]["record"]) if rows else None
