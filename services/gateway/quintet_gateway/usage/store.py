"""The tables of usage; see `migrations/0005_usage.sql`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import groupby
from typing import Any
from uuid import UUID

from psycopg import errors, sql
from psycopg.rows import DictRow

from quintet_gateway.database import Database
from quintet_gateway.usage.entry import Sums
from quintet_servicekit.identity import Identity, acting_as
from quintet_servicekit.postgres import tenancy
from quintet_servicekit.postgres.database import Operation, Statement

_COUNT = Operation("UPSERT", "usage", background=True)
_MARK = Operation("SELECT", "usage_spool", background=True)
_SELECT = Operation("SELECT", "usage")
_SPENT = Operation("SELECT", "spending", background=True)

COLUMNS = ("day", "collection", "key", "model")
"""What can be grouped by, in their order."""
_NUMBERS = (
    "calls",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "embedding_tokens",
    "cost_nanos",
    "saved_nanos",
)
_KEPT_DAYS = 400
"""Days after which the mark of a spool goes; its file is long gone."""


def _listed(parts: Iterable[Any]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(it) for it in parts)


_ADD = sql.SQL(
    "INSERT INTO gateway.usage AS it (tenant, day, collection, key, model, currency, {numbers})"
    " SELECT %(tenant)s, * FROM unnest(%(days)s::date[], %(collections)s::text[],"
    " %(keys)s::text[], %(models)s::text[], %(currencies)s::text[], {arrays})"
    " ON CONFLICT (tenant, day, collection, key, model, currency) DO UPDATE SET {sums}"
).format(
    numbers=_listed(_NUMBERS),
    arrays=_listed(f"%({it})s::bigint[]" for it in _NUMBERS),
    sums=_listed(f"{it} = it.{it} + excluded.{it}" for it in _NUMBERS),
)
_SPEND = sql.SQL(
    "INSERT INTO gateway.spending AS it (tenant, day, currency, cost_nanos)"
    " SELECT %(tenant)s, day, currency, sum(cost) FROM unnest(%(days)s::date[],"
    " %(currencies)s::text[], %(cost_nanos)s::bigint[]) AS new (day, currency, cost)"
    " GROUP BY day, currency ORDER BY day, currency ON CONFLICT (tenant, day, currency)"
    " DO UPDATE SET cost_nanos = it.cost_nanos + excluded.cost_nanos"
)


class CountedError(Exception):
    """The spool's mark is not where it was thought to be."""


class UsageStore:
    """Usage in PostgreSQL. All methods raise `ServiceError` as `Database.run` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counted(self, spool: UUID) -> int:
        """Return how many bytes of a spool are counted."""
        rows = await self._database.run(
            _MARK,
            _statement("SELECT counted FROM gateway.usage_spool WHERE id = %(id)s", id=spool),
        )
        return int(rows[0]["counted"]) if rows else 0

    async def count(self, spool: UUID, before: int, now: int, sums: Sums) -> None:
        """Add sums, of whichever tenants, and move the spool's mark: both or neither.
        Raises `CountedError` where the mark is not at `before`."""
        statements = [
            _statement(
                "SELECT gateway.count_spool(%(id)s, %(before)s, %(now)s)",
                id=spool,
                before=before,
                now=now,
            )
        ]
        # In one order, in which two writers wait for each other and for nothing else.
        for tenant, its in groupby(sorted(sums.rows.items()), key=lambda item: item[0].tenant):
            rows = list(its)
            values: dict[str, Any] = {
                "tenant": tenant,
                "days": [date.fromisoformat(row.day) for row, _ in rows],
                "collections": [row.collection for row, _ in rows],
                "keys": [row.key for row, _ in rows],
                "models": [row.model for row, _ in rows],
                "currencies": [row.currency for row, _ in rows],
            }
            for place, name in enumerate(_NUMBERS):
                values[name] = [numbers[place] for _, numbers in rows]
            statements.append(
                _statement(
                    "SELECT set_config(%(setting)s, %(tenant)s, true)",
                    setting=tenancy.SETTING,
                    tenant=tenant,
                )
            )
            statements += [Statement(_ADD, values), Statement(_SPEND, values)]
        try:
            await self._database.run(_COUNT, *statements)
        except errors.Error as error:
            if error.sqlstate == "QS001":
                raise CountedError from error
            raise

    async def forget_marks(self) -> None:
        """Drop the marks of spools that are long gone."""
        await self._database.run(
            _MARK,
            _statement(
                "DELETE FROM gateway.usage_spool WHERE at < now() - %(days)s * interval '1 day'",
                days=_KEPT_DAYS,
            ),
        )

    async def spent(self, of: Sequence[tuple[str, date, date]], currency: str) -> list[int]:
        """Return what each tenant has spent from a day until the one before another, in
        nano-units."""
        rows = await self._database.run(
            _SPENT,
            _statement(
                "SELECT cost_nanos FROM gateway.spent_between("
                "%(tenants)s::text[], %(firsts)s::date[], %(ends)s::date[], %(currency)s)"
                " ORDER BY place",
                tenants=[tenant for tenant, _, _ in of],
                firsts=[first for _, first, _ in of],
                ends=[end for _, _, end in of],
                currency=currency,
            ),
        )
        return [int(row["cost_nanos"]) for row in rows]

    async def page(
        self,
        tenant: str,
        days: tuple[date, date],
        columns: Sequence[str],
        after: Sequence[str] | None,
        most: int,
    ) -> list[DictRow]:
        """Return a tenant's sums by `columns` and currency, in their order, from the one
        `after` those values on; days are text."""
        values: dict[str, Any]
        keys = (*columns, "currency")
        texts = ["day::text AS day" if it == "day" else it for it in keys]
        sums = [f"coalesce(sum({it}), 0)::bigint AS {it}" for it in _NUMBERS]
        if "model" not in columns:
            sums[0] = "coalesce(sum(calls) FILTER (WHERE model = ''), 0)::bigint AS calls"
        values = {"tenant": tenant, "first": days[0], "last": days[1], "most": most}
        beyond = sql.Composed([])
        if after is not None:
            values |= {f"after_{it}": value for it, value in zip(keys, after, strict=True)}
            places = [f"%(after_{it})s" + ("::date" if it == "day" else "") for it in keys]
            beyond = sql.SQL("AND ({}) > ({})").format(_listed(keys), _listed(places))
        statement = sql.SQL(
            "SELECT {texts}, {sums} FROM gateway.usage WHERE tenant = %(tenant)s"
            " AND day BETWEEN %(first)s AND %(last)s {beyond}"
            " GROUP BY {keys} ORDER BY {keys} LIMIT %(most)s"
        ).format(texts=_listed(texts), sums=_listed(sums), beyond=beyond, keys=_listed(keys))
        with acting_as(Identity(tenant)):
            return await self._database.run(_SELECT, Statement(statement, values))


def _statement(text: Any, **parameters: Any) -> Statement:
    return Statement(sql.SQL(text), parameters)
