"""The pieces of SQL that every write has: who waits for whom, and what it leaves behind."""

from __future__ import annotations

from psycopg import sql

from quintet_retriever.models import CollectionKey
from quintet_servicekit.postgres.database import Statement

# What goes with each raise of an epoch, of the rows of the CTE `raised`.
_NEWS = """changed AS (
    INSERT INTO retriever.change (collection_id, epoch, document_key, invalidated)
    SELECT id, epoch, document_key, %s FROM raised
), queued AS (
    INSERT INTO retriever.outbox (name, collection_id, epoch) SELECT name, id, epoch FROM raised
)"""
WRITE = sql.SQL(_NEWS % "FALSE")
INVALIDATION = sql.SQL(_NEWS % "TRUE")


def share_of(key: CollectionKey) -> Statement:
    """Return the statement with which a write begins: it takes a share of the collection."""
    return Statement(
        sql.SQL("SELECT FROM retriever.collection WHERE id = %(id)s FOR KEY SHARE"),
        {"id": key.id},
    )
