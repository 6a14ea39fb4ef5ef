"""Keeps links in PostgreSQL; see `reading` for how they are resolved.

A write of links touches no document's text, so that nothing that was found in the texts
changes: its row in `change` is of no document (key 0). What follows links is told by
the epoch alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import sql
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from quintet_retriever.database import Database
from quintet_retriever.epoch_sql import WRITE, share_of
from quintet_retriever.links import passages, reading, suggesting
from quintet_retriever.links.models import (
    Direction,
    Link,
    LinkType,
    NewLink,
    Occurrence,
    Rank,
    Status,
    Suggestion,
)
from quintet_retriever.links.names import id_name, names_of
from quintet_retriever.links.parsing import MAX_OCCURRENCES
from quintet_retriever.models import CollectionKey, Hit, SearchQuery
from quintet_retriever.search_sql import index_settings
from quintet_retriever.settings import Settings
from quintet_retriever.tables import Tables
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement

_RAISE = sql.SQL(
    "raised AS ("
    " UPDATE retriever.collection AS c SET epoch = c.epoch + 1 FROM told AS t"
    " WHERE c.id = %(collection)s RETURNING c.id, c.name, c.epoch, {key} AS document_key"
    "), {news}"
)

_PUT = sql.SQL(
    "WITH put AS ("
    " INSERT INTO {link} AS l (source_key, name, type, status, target, note, confidence)"
    " SELECT key, %(name)s, %(type)s, %(status)s, %(target)s, %(note)s, %(confidence)s::real"
    " FROM {document} WHERE id = %(source)s"
    " ON CONFLICT (source_key, name, type) DO UPDATE SET (status, target, note, confidence,"
    " create_time) = (excluded.status, excluded.target, excluded.note, excluded.confidence,"
    " CASE WHEN l.status = {dismissed} THEN clock_timestamp() ELSE l.create_time END)"
    # A link that was made is not dismissed: it is deleted.
    " WHERE excluded.status <> {dismissed}"
    " RETURNING old.status AS status_before"
    "), told AS (SELECT FROM {document} WHERE id = %(source)s), {raised}"
    " SELECT epoch, (SELECT coalesce(status_before, {dismissed}) = {dismissed} FROM put)"
    " AS created FROM raised"
)

_DELETE = sql.SQL(
    "WITH gone AS ("
    " DELETE FROM {link} WHERE type = %(type)s"
    # A target that was renamed since has more ids than one.
    " AND (name = %(name)s OR name IN (SELECT n.name FROM {name} AS n WHERE n.name LIKE 'id:%%'"
    " AND n.document_key = (SELECT key FROM {document} WHERE id = %(target)s)))"
    " AND status IN ({created}, {accepted})"
    " AND source_key = (SELECT key FROM {document} WHERE id = %(source)s) RETURNING source_key"
    "), told AS (SELECT FROM gone LIMIT 1), {raised} SELECT epoch FROM raised"
)

# Its names go and come back: what named it by its old path is a former name now. All are
# gone before the first comes back (DISTINCT has to see them all).
_RENAME = sql.SQL(
    "WITH renamed AS ("
    " UPDATE {document} SET id = %(new)s, update_time = clock_timestamp() WHERE id = %(old)s"
    " RETURNING key"
    "), gone AS ("
    " DELETE FROM {name} AS n USING renamed AS r WHERE n.document_key = r.key"
    " RETURNING n.name, n.rank"
    "), named AS ("
    " INSERT INTO {name} (name, rank, document_id, document_key)"
    " SELECT DISTINCT ON (t.name) t.name, t.rank, %(new)s, r.key FROM renamed AS r, ("
    " SELECT name, CASE WHEN name = ANY (%(former)s::text[]) THEN {former} ELSE rank END AS rank"
    " FROM gone UNION ALL"
    " SELECT name, rank FROM unnest(%(names)s::text[], %(ranks)s::smallint[]) AS u (name, rank)"
    ") AS t ORDER BY t.name, t.rank"
    "), told AS (SELECT key FROM renamed), {raised} SELECT epoch FROM raised"
)

_EXISTING = sql.SQL("SELECT key, id FROM {document} WHERE id = ANY (%(ids)s::text[])")


class PostgresLinks:
    """Implements the engine's `LinkStore`. Each call is one round trip."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def keys(self, key: CollectionKey, ids: Sequence[str]) -> dict[str, int]:
        """Return the keys of the documents that are there, by their ids."""
        rows = await self._database.run(
            Operation("SELECT", "document"),
            Statement(_EXISTING.format(document=Tables.of(key.id).document), {"ids": list(ids)}),
        )
        return {row["id"]: row["key"] for row in rows}

    async def links_from(
        self,
        key: CollectionKey,
        document_id: str | None,
        types: Collection[LinkType],
        position: Sequence[Any],
        limit: int,
        *,
        dangling: bool = False,
    ) -> list[tuple[Link, str]]:
        """Return the links from a document, or from all without an id, after a position;
        see `reading.page_from`. With each the name by which it dangles, or ""."""
        tables = Tables.of(key.id)
        rows = await self._database.run(
            Operation("SELECT", "link", "SELECT document SELECT link SELECT name"),
            reading.page_from(tables, document_id, types, position, limit, dangling=dangling),
        )
        return [(_link(row), row["dangling"]) for row in rows]

    async def links_to(
        self,
        key: CollectionKey,
        document_key: int,
        types: Collection[LinkType],
        position: Sequence[Any],
        limit: int,
    ) -> list[Link]:
        """Return the links to a document after a position; see `reading.page_to`."""
        rows = await self._database.run(
            Operation("SELECT", "link", "SELECT name SELECT link SELECT document"),
            reading.page_to(Tables.of(key.id), document_key, types, position, limit),
        )
        return [_link(row) for row in rows]

    async def neighbours(
        self,
        key: CollectionKey,
        keys: Sequence[int],
        direction: Direction,
        types: Collection[LinkType],
        limit: int,
    ) -> list[tuple[int, Link]]:
        """Return the links from or to each of the documents `keys`, at most `limit` of each
        and direction, the strongest; with each the document's key."""
        rows = await self._database.run(
            Operation("SELECT", "link", "SELECT name SELECT link SELECT document"),
            reading.neighbours(Tables.of(key.id), keys, direction, types, limit),
        )
        return [(row["near"], _link(row)) for row in rows]

    async def best_passages(
        self, key: CollectionKey, query: SearchQuery, documents: Sequence[str]
    ) -> list[Hit]:
        """Return the best passages of the documents for a query, one each, at most its k."""
        rows = await self._database.run(
            Operation("SELECT", "chunk", "SELECT chunk SELECT document"),
            passages.best_passages(key, query, documents),
        )
        return [Hit(start=row.pop("start_char"), end=row.pop("end_char"), **row) for row in rows]

    async def put(
        self, key: CollectionKey, new: NewLink, status: Status, confidence: float | None = None
    ) -> tuple[Epoch, bool] | None:
        """Make the link, or change the one that is there; return the epoch and whether it
        is new. None without its source."""
        rows = await self._database.run(
            Operation(
                "INSERT", "link", "INSERT link UPDATE collection INSERT change INSERT outbox"
            ),
            share_of(key),
            Statement(
                self._format(_PUT, key),
                {
                    "collection": key.id,
                    "source": new.source_id,
                    "name": id_name(new.target_id),
                    "target": new.target_id,
                    "type": int(new.type),
                    "status": int(status),
                    "note": new.note,
                    "confidence": confidence,
                },
            ),
        )
        if not rows:
            return None
        return Epoch(key.id, rows[0]["epoch"]), bool(rows[0]["created"])

    async def delete(
        self, key: CollectionKey, source_id: str, target_id: str, link_type: LinkType
    ) -> Epoch | None:
        """Delete a link that a caller made; None without it."""
        rows = await self._database.run(
            Operation(
                "DELETE", "link", "DELETE link UPDATE collection INSERT change INSERT outbox"
            ),
            share_of(key),
            Statement(
                self._format(_DELETE, key),
                {
                    "collection": key.id,
                    "source": source_id,
                    "name": id_name(target_id),
                    "target": target_id,
                    "type": int(link_type),
                },
            ),
        )
        return Epoch(key.id, rows[0]["epoch"]) if rows else None

    async def suggest(
        self,
        key: CollectionKey,
        document_id: str,
        limit: int,
        least: float,
        target: str | None = None,
    ) -> list[Suggestion]:
        """Return documents to link to; of `target` alone where it is given."""
        rows = await self._database.run(
            Operation("SELECT", "chunk", "SELECT document SELECT chunk SELECT link SELECT name"),
            index_settings(self._settings),
            suggesting.suggestions(key, document_id, limit, least, target),
        )
        return [Suggestion(**row) for row in rows]

    async def rename(self, key: CollectionKey, old: str, new: str) -> Epoch | None:
        """Give a document another id; None without it. Raises `ServiceError`
        DOCUMENT_EXISTS when another document has that id."""
        names = names_of(new, "", ())
        operation = Operation(
            "UPDATE",
            "document",
            "UPDATE document DELETE name INSERT name UPDATE collection INSERT change INSERT outbox",
        )
        parameters = {
            "collection": key.id,
            "old": old,
            "new": new,
            "names": [it.name for it in names],
            "ranks": [int(it.rank) for it in names],
            "former": [it.name for it in names_of(old, "", ())],
        }
        try:
            rows = await self._database.run(
                operation, share_of(key), Statement(self._format(_RENAME, key, "t.key"), parameters)
            )
        except UniqueViolation as error:
            raise ServiceError(
                Reason.DOCUMENT_EXISTS,
                "another document has that id",
                metadata={"document_id": new},
            ) from error
        return Epoch(key.id, rows[0]["epoch"]) if rows else None

    @staticmethod
    def _format(statement: sql.SQL, key: CollectionKey, changed: str = "0::bigint") -> sql.Composed:
        tables = Tables.of(key.id)
        return statement.format(
            document=tables.document,
            name=tables.name,
            link=tables.link,
            raised=_RAISE.format(key=sql.SQL(changed), news=WRITE),
            created=sql.Literal(int(Status.CREATED)),
            accepted=sql.Literal(int(Status.ACCEPTED)),
            dismissed=sql.Literal(int(Status.DISMISSED)),
            former=sql.Literal(int(Rank.FORMER)),
        )


def _link(row: DictRow) -> Link:
    places = sorted(tuple(each) for several in row["occurrences"] for each in several)
    return Link(
        source_key=row["source_key"],
        source_id=row["source_id"],
        source_title=row["source_title"],
        target_key=row["target_key"],
        target_id=row["target_id"],
        target_title=row["target_title"],
        target=row["target"],
        type=LinkType(row["type"]),
        status=Status(row["status"]),
        note=row["note"],
        confidence=row["confidence"],
        create_time=row["create_time"],
        occurrences=tuple(Occurrence(*each) for each in places[:MAX_OCCURRENCES]),
        occurrence_count=row["occurrence_count"],
    )
