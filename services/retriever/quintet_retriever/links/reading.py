"""Builds the statements that read links, each way by an index.

From a document: its rows of links, each with the first row of its name. To a document:
the names that are its own before anybody else's, and the rows of links of those names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import sql

from quintet_retriever.links.models import Direction, LinkType, Status
from quintet_retriever.tables import Tables
from quintet_servicekit.postgres.database import Statement

MAX_ROWS = 2_000
"""Rows of links that are looked at, of one document in one direction, when its
neighbours are ranked: 2,000 take some ten milliseconds."""

# The document that has the name of the link `l`.
_OWNER = sql.SQL(
    "(SELECT n.document_key AS key FROM {name} AS n WHERE n.name = l.name"
    " ORDER BY n.rank, n.document_id LIMIT 1)"
)

# The names of the document `of` that no other document has before it.
_OWN_NAMES = sql.SQL(
    "SELECT n.name FROM {name} AS n WHERE n.document_key = {of} AND {of} = ("
    "SELECT b.document_key FROM {name} AS b WHERE b.name = n.name"
    " ORDER BY b.rank, b.document_id LIMIT 1)"
)

# One link of several rows: two spellings of one target are one link.
_TOGETHER = sql.SQL(
    "l.type, l.status, min(l.target) AS target, max(l.note) AS note,"
    " max(l.confidence)::float8 AS confidence, min(l.create_time) AS create_time,"
    " jsonb_agg(l.occurrences) AS occurrences,"
    " sum(l.occurrence_count)::integer AS occurrence_count"
)

_FROM = sql.SQL(
    "SELECT owner.key AS target_key, CASE WHEN owner.key IS NULL THEN l.name ELSE '' END"
    " AS dangling, {together} FROM {rows} AS l LEFT JOIN LATERAL {owner} AS owner ON TRUE"
    " WHERE {wanted} AND owner.key IS DISTINCT FROM l.source_key"
    " GROUP BY owner.key, dangling, l.type, l.status"
)

_COLUMNS = sql.SQL(
    "s.key AS source_key, s.id AS source_id, s.title AS source_title, d.key AS target_key,"
    " coalesce(d.id, '') AS target_id, coalesce(d.title, '') AS target_title, g.target, g.type,"
    " g.status, g.note, g.confidence, g.create_time, g.occurrences, g.occurrence_count"
)

_PAGE_FROM = sql.SQL(
    "SELECT {columns}, g.dangling FROM {document} AS s CROSS JOIN LATERAL ({found}) AS g"
    " LEFT JOIN {document} AS d ON d.key = g.target_key"
    " WHERE {which} AND s.id >= %(source)s AND (s.id, coalesce(d.id, ''), g.dangling, g.type,"
    " g.status) > (%(source)s, %(target)s, %(dangling)s, %(type)s::smallint, %(status)s::smallint)"
    " ORDER BY s.id, coalesce(d.id, ''), g.dangling, g.type, g.status LIMIT %(limit)s"
)

_PAGE_TO = sql.SQL(
    "WITH own AS MATERIALIZED ({own_names})"
    " SELECT {columns}, '' AS dangling FROM ("
    " SELECT l.source_key, {together} FROM own JOIN {link} AS l USING (name)"
    " WHERE {wanted} AND l.source_key <> %(key)s GROUP BY l.source_key, l.type, l.status"
    ") AS g JOIN {document} AS s ON s.key = g.source_key JOIN {document} AS d ON d.key = %(key)s"
    " WHERE (s.id, g.type, g.status) > (%(source)s, %(type)s::smallint, %(status)s::smallint)"
    " ORDER BY s.id, g.type, g.status LIMIT %(limit)s"
)

# Where not all are followed, the strongest come first: what callers stated, then what the
# text repeats most.
_NEIGHBOURS_FROM = sql.SQL(
    "(SELECT f.key AS near, {columns} FROM unnest(%(keys)s::bigint[]) AS f (key)"
    " JOIN {document} AS s ON s.key = f.key CROSS JOIN LATERAL ("
    " SELECT * FROM ({found}) AS g WHERE target_key IS NOT NULL"
    " ORDER BY status > {stated} DESC, occurrence_count DESC, target_key LIMIT %(limit)s"
    ") AS g JOIN {document} AS d ON d.key = g.target_key)"
)

_NEIGHBOURS_TO = sql.SQL(
    "(SELECT f.key AS near, {columns} FROM unnest(%(keys)s::bigint[]) AS f (key)"
    " JOIN {document} AS d ON d.key = f.key CROSS JOIN LATERAL ("
    " SELECT l.source_key, {together} FROM ("
    "SELECT l.* FROM ({own_names}) AS own JOIN {link} AS l USING (name) LIMIT {most}"
    ") AS l WHERE {wanted} AND l.source_key <> f.key GROUP BY l.source_key, l.type, l.status"
    " ORDER BY l.status > {stated} DESC, occurrence_count DESC, l.source_key LIMIT %(limit)s"
    ") AS g JOIN {document} AS s ON s.key = g.source_key)"
)


def page_from(
    tables: Tables,
    document_id: str | None,
    types: Collection[LinkType],
    position: Sequence[Any],
    limit: int,
    *,
    dangling: bool = False,
) -> Statement:
    """Return the statement whose rows are the links from a document, or without an id of
    all, by source and target; `position` is the place after which they begin: source,
    target, dangling name, type and status."""
    wanted = _wanted(types)
    which: sql.Composable = sql.SQL("TRUE" if document_id is None else "s.id = %(id)s")
    if dangling:
        which = sql.SQL("{} AND g.target_key IS NULL").format(which)
    found = _FROM.format(
        together=_TOGETHER,
        rows=tables.link,
        owner=_OWNER.format(name=tables.name),
        wanted=sql.SQL("l.source_key = s.key AND {}").format(wanted),
    )
    place = dict(zip(("source", "target", "dangling", "type", "status"), position, strict=True))
    return Statement(
        _PAGE_FROM.format(columns=_COLUMNS, document=tables.document, found=found, which=which),
        place | {"id": document_id, "limit": limit},
    )


def page_to(
    tables: Tables, key: int, types: Collection[LinkType], position: Sequence[Any], limit: int
) -> Statement:
    """Return the statement whose rows are the links to the document `key` by source, after
    the place of source, type and status."""
    place = dict(zip(("source", "type", "status"), position, strict=True))
    return Statement(
        _PAGE_TO.format(
            own_names=_OWN_NAMES.format(name=tables.name, of=sql.SQL("%(key)s")),
            columns=_COLUMNS,
            together=_TOGETHER,
            link=tables.link,
            document=tables.document,
            wanted=_wanted(types),
        ),
        place | {"key": key, "limit": limit},
    )


def neighbours(
    tables: Tables,
    keys: Sequence[int],
    direction: Direction,
    types: Collection[LinkType],
    limit: int,
) -> Statement:
    """Return the statement whose rows are the links from or to the documents `keys`, none
    that dangles, at most `limit` a document and direction; `near` is the document's key."""
    rows = sql.SQL("(SELECT * FROM {} WHERE source_key = f.key LIMIT {})").format(
        tables.link, sql.Literal(MAX_ROWS)
    )
    pieces: dict[str, sql.Composable] = {
        "columns": _COLUMNS,
        "document": tables.document,
        "link": tables.link,
        "together": _TOGETHER,
        "wanted": _wanted(types),
        "stated": sql.Literal(int(Status.STATED)),
        "most": sql.Literal(MAX_ROWS),
        "own_names": _OWN_NAMES.format(name=tables.name, of=sql.SQL("f.key")),
        "found": _FROM.format(
            together=_TOGETHER,
            rows=rows,
            owner=_OWNER.format(name=tables.name),
            wanted=_wanted(types),
        ),
    }
    sides = []
    if direction is not Direction.TO:
        sides.append(_NEIGHBOURS_FROM.format(**pieces))
    if direction is not Direction.FROM:
        sides.append(_NEIGHBOURS_TO.format(**pieces))
    return Statement(sql.SQL(" UNION ALL ").join(sides), {"keys": list(keys), "limit": limit})


def _wanted(types: Collection[LinkType]) -> sql.Composable:
    wanted = sql.SQL("l.status <> {}").format(sql.Literal(int(Status.DISMISSED)))
    if not types:
        return wanted
    chosen = sql.SQL(", ").join(sql.Literal(int(it)) for it in sorted(types))
    return sql.SQL("{} AND l.type IN ({})").format(wanted, chosen)
