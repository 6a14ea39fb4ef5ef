"""The statements with which a document's write keeps its names and links.

They are part of the document's own transaction, and come after the one that locks its
row, so that two writers of it do not mix.
"""

from __future__ import annotations

from psycopg import sql
from psycopg.types.json import Jsonb

from quintet_retriever.links.models import (
    DocumentLinks,
    FoundLink,
    LinkType,
    Occurrence,
    Rank,
    Status,
)
from quintet_retriever.tables import Tables
from quintet_servicekit.postgres.database import Statement

_FORGET_NAMES = sql.SQL(
    "DELETE FROM {name} WHERE rank < {former} AND document_key ="
    " (SELECT key FROM {document} WHERE id = %(id)s)"
)
_NAMES = sql.SQL(
    "INSERT INTO {name} (name, rank, document_id, document_key)"
    " SELECT n.name, n.rank, d.id, d.key FROM {document} AS d,"
    " unnest(%(names)s::text[], %(ranks)s::smallint[]) AS n (name, rank) WHERE d.id = %(id)s"
)
_FORGET_LINKS = sql.SQL(
    "DELETE FROM {link} WHERE status = {stated} AND source_key ="
    " (SELECT key FROM {document} WHERE id = %(id)s)"
)
_LINKS = sql.SQL(
    "INSERT INTO {link} (source_key, name, type, status, target, occurrences, occurrence_count)"
    " SELECT d.key, l.name, {references}, {stated}, l.target, l.occurrences, l.count"
    " FROM {document} AS d, unnest(%(names)s::text[], %(targets)s::text[],"
    " %(occurrences)s::jsonb[], %(counts)s::integer[]) AS l (name, target, occurrences, count)"
    " WHERE d.id = %(id)s"
)


def link_statements(tables: Tables, document_id: str, found: DocumentLinks) -> list[Statement]:
    """Return the statements that make `found` the document's names and links. Links that
    callers made stay."""
    pieces: dict[str, sql.Composable] = {
        "document": tables.document,
        "name": tables.name,
        "link": tables.link,
        "former": sql.Literal(int(Rank.FORMER)),
        "stated": sql.Literal(int(Status.STATED)),
        "references": sql.Literal(int(LinkType.REFERENCES)),
    }
    statements = [
        Statement(_FORGET_NAMES.format(**pieces), {"id": document_id}),
        Statement(
            _NAMES.format(**pieces),
            {
                "id": document_id,
                "names": [it.name for it in found.names],
                "ranks": [int(it.rank) for it in found.names],
            },
        ),
        Statement(_FORGET_LINKS.format(**pieces), {"id": document_id}),
    ]
    if found.links:
        statements.append(
            Statement(
                _LINKS.format(**pieces),
                {
                    "id": document_id,
                    "names": [it.name for it in found.links],
                    "targets": [it.target for it in found.links],
                    "occurrences": [_packed(it) for it in found.links],
                    "counts": [it.count for it in found.links],
                },
            )
        )
    return statements


def _packed(link: FoundLink) -> Jsonb:
    return Jsonb([_occurrence(it) for it in link.occurrences])


def _occurrence(it: Occurrence) -> list[object]:
    return [it.start, it.end, it.sentence, it.label, it.fragment, it.embed]
