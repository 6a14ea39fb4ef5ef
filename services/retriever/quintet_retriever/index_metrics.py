"""What the database holds, as gauges: the active relay looks now and then."""

from __future__ import annotations

import psycopg
from prometheus_client import Gauge
from psycopg.rows import DictRow

_COLLECTIONS = Gauge("quintet_index_collections", "Collections, at the active relay's last look.")
_DOCUMENTS = Gauge("quintet_index_documents", "Documents of all collections, as above.")
_CHUNKS = Gauge("quintet_index_chunks", "Chunks of all collections, as above.")
_HNSW_BYTES = Gauge("quintet_index_hnsw_bytes", "Size of all HNSW indexes on disk, as above.")
_DATABASE_BYTES = Gauge("quintet_index_database_bytes", "Size of the database, as above.")

# The counts are kept by each writer: nothing is counted here.
_HELD = (
    "SELECT count(*) AS collections, coalesce(sum(document_count), 0)::bigint AS documents,"
    " coalesce(sum(chunk_count), 0)::bigint AS chunks,"
    " pg_database_size(current_database()) AS database_bytes,"
    " (SELECT coalesce(sum(pg_relation_size(c.oid)), 0)::bigint FROM pg_class AS c"
    "  JOIN pg_am AS a ON a.oid = c.relam WHERE a.amname = 'hnsw') AS hnsw_bytes"
    " FROM retriever.collection"
)


async def measure(connection: psycopg.AsyncConnection[DictRow]) -> None:
    """Set the gauges to what the database holds now."""
    row = await (await connection.execute(_HELD)).fetchone()
    assert row is not None
    _COLLECTIONS.set(row["collections"])
    _DOCUMENTS.set(row["documents"])
    _CHUNKS.set(row["chunks"])
    _HNSW_BYTES.set(row["hnsw_bytes"])
    _DATABASE_BYTES.set(row["database_bytes"])
