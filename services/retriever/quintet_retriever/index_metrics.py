"""What the database holds, as gauges: the active relay looks now and then."""

from __future__ import annotations

import psycopg
from prometheus_client import Gauge
from psycopg.rows import DictRow

_COLLECTIONS = Gauge(
    "quintet_index_collections", "Collections, at the active relay's last look; 0 of the others."
)
_DOCUMENTS = Gauge("quintet_index_documents", "Documents of all collections, as above.")
_CHUNKS = Gauge("quintet_index_chunks", "Chunks of all collections, as above.")
_HNSW_BYTES = Gauge("quintet_index_hnsw_bytes", "Size of all HNSW indexes on disk, as above.")
_DATABASE_BYTES = Gauge("quintet_index_database_bytes", "Size of the database, as above.")

# With the owner's rights: row-level security shows the service one tenant's rows alone.
_HELD = "SELECT * FROM retriever.held()"


async def measure(connection: psycopg.AsyncConnection[DictRow]) -> None:
    """Set the gauges to what the database holds now."""
    row = await (await connection.execute(_HELD)).fetchone()
    assert row is not None
    _COLLECTIONS.set(row["collections"])
    _DOCUMENTS.set(row["documents"])
    _CHUNKS.set(row["chunks"])
    _HNSW_BYTES.set(row["hnsw_bytes"])
    _DATABASE_BYTES.set(row["database_bytes"])


def forget() -> None:
    """Set the gauges to 0: another process tells from now on."""
    for gauge in (_COLLECTIONS, _DOCUMENTS, _CHUNKS, _HNSW_BYTES, _DATABASE_BYTES):
        gauge.set(0)
