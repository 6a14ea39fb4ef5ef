"""Builds the statement that suggests links: documents whose passages are near in meaning.

A few passages of the source, evenly spread, each look for their nearest passages by the
index of vectors. The documents of these are then compared with all those passages: the
confidence is the mean, over the source's passages, of the cosine to the document's
nearest one.
"""

from __future__ import annotations

from psycopg import sql

from quintet_retriever.models import CollectionKey
from quintet_retriever.tables import Tables
from quintet_servicekit.postgres.database import Statement

PROBES = 8
"""Passages of the source that are looked for. A note has fewer; of a long document more
would blur what it is about."""
NEAREST = 40
"""Passages that each finds: five documents of eight passages, the source's own aside."""
MAX_CANDIDATES = 60
"""Documents that are compared."""
MAX_COMPARED = 200
"""Passages of a document that are compared; of a longer one every so many."""

_SUGGEST = sql.SQL("""
WITH source AS MATERIALIZED (
    SELECT key, greatest(1, chunk_count / {probes}) AS step FROM {document} WHERE id = %(id)s
),
probe AS MATERIALIZED (
    SELECT c.chunk_index, c.embedding FROM source AS s JOIN {chunk} AS c ON c.document_key = s.key
    WHERE c.chunk_index %% s.step = 0 ORDER BY c.chunk_index LIMIT {probes}
),
near AS MATERIALIZED ({near}),
pair AS (
    SELECT n.key, p.chunk_index AS source_chunk, best.chunk_index AS target_chunk, best.cosine
    FROM near AS n JOIN {document} AS d ON d.key = n.key CROSS JOIN probe AS p
    CROSS JOIN LATERAL (
        SELECT c.chunk_index, 1 - (c.embedding <=> p.embedding) AS cosine FROM {chunk} AS c
        WHERE c.document_key = n.key
            AND c.chunk_index %% greatest(1, d.chunk_count / {compared}) = 0
        ORDER BY c.embedding <=> p.embedding, c.chunk_index LIMIT 1
    ) AS best
),
told AS (
    SELECT key, greatest(0, least(1, avg(cosine)))::float8 AS confidence,
        (array_agg(source_chunk ORDER BY cosine DESC, source_chunk))[1] AS source_chunk,
        (array_agg(target_chunk ORDER BY cosine DESC, source_chunk))[1] AS target_chunk
    FROM pair GROUP BY key
)
SELECT d.id AS document_id, d.title, t.confidence, t.source_chunk, a.text AS source_text,
    t.target_chunk, b.text AS target_text
FROM told AS t JOIN {document} AS d ON d.key = t.key
JOIN {chunk} AS a ON a.document_key = (SELECT key FROM source) AND a.chunk_index = t.source_chunk
JOIN {chunk} AS b ON b.document_key = t.key AND b.chunk_index = t.target_chunk
WHERE t.confidence >= %(least)s
ORDER BY t.confidence DESC, d.id LIMIT %(limit)s""")

# Those that are neither linked nor dismissed, either way.
_ANY = """
    SELECT document_key AS key FROM (
        SELECT c.document_key, min(c.distance) AS distance FROM probe AS p CROSS JOIN LATERAL (
            SELECT c.document_key,
                c.embedding::halfvec({dimension}) <=> p.embedding::halfvec({dimension}) AS distance
            FROM {chunk} AS c WHERE c.document_key <> (SELECT key FROM source)
            ORDER BY c.embedding::halfvec({dimension}) <=> p.embedding::halfvec({dimension})
            LIMIT {nearest}
        ) AS c GROUP BY c.document_key
    ) AS found
    WHERE document_key NOT IN (
        SELECT owner.key FROM {link} AS l CROSS JOIN LATERAL (
            SELECT n.document_key AS key FROM {name} AS n WHERE n.name = l.name
            ORDER BY n.rank, n.document_id LIMIT 1
        ) AS owner WHERE l.source_key = (SELECT key FROM source)
        UNION ALL
        SELECT l.source_key FROM {name} AS n JOIN {link} AS l USING (name)
        WHERE n.document_key = (SELECT key FROM source) AND n.document_key = (
            SELECT b.document_key FROM {name} AS b WHERE b.name = n.name
            ORDER BY b.rank, b.document_id LIMIT 1
        )
    )
    ORDER BY distance, document_key LIMIT {candidates}"""

_ONE = "SELECT key FROM {document} WHERE id = %(target)s"


def suggestions(
    collection: CollectionKey, document_id: str, limit: int, least: float, target: str | None = None
) -> Statement:
    """Return the statement whose rows are the documents to link to, the most confident
    first; of `target` alone, linked or not, where it is given."""
    tables = Tables.to_read(collection.id)
    pieces: dict[str, sql.Composable] = {
        "document": tables.document,
        "chunk": tables.chunk,
        "link": tables.link,
        "name": tables.name,
        "dimension": sql.Literal(collection.dimension),
        "probes": sql.Literal(PROBES),
        "nearest": sql.Literal(NEAREST),
        "candidates": sql.Literal(MAX_CANDIDATES),
        "compared": sql.Literal(MAX_COMPARED),
    }
    near = sql.SQL(_ANY if target is None else _ONE).format(**pieces)
    return Statement(
        _SUGGEST.format(**pieces, near=near),
        {"id": document_id, "target": target, "limit": limit, "least": least},
    )
