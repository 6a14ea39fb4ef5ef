"""Builds the one statement of a search.

Dense candidates come from the HNSW index, or from comparing all chunks where few
come into question or the index gave too few; lexical ones from the GIN index.
Hybrid search orders the chunks of both lists by a convex combination of their scores,
each scaled to its least and greatest among them (Bruch, Gai and Ingber, TOIS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.query_sql import QueryParts
from quintet_retriever.settings import Settings
from quintet_servicekit.postgres.database import Statement

# How many chunks come into question: all, or those of matching documents. Of the
# latter no more are counted than are needed to know that they are many.
_POPULATION = """
population AS MATERIALIZED (
    SELECT chunk_count AS chunks FROM retriever.collection WHERE id = {collection_id}
)"""

_FILTERED_POPULATION = """
population AS MATERIALIZED (
    SELECT coalesce(sum(chunk_count), 0) AS chunks
    FROM (SELECT chunk_count FROM {document} AS d WHERE {condition} LIMIT {exact} + 1) AS matching
)"""

_NEAR = """
near AS MATERIALIZED (
    SELECT document_key, chunk_index, embedding <=> {vector} AS distance
    FROM {chunk} AS c
    WHERE (SELECT chunks > {exact} FROM population) AND {matches_each}
    ORDER BY embedding::halfvec({dimension}) <=> {vector}::halfvec({dimension})
    LIMIT {candidates}
),
compared AS (
    SELECT document_key, chunk_index, embedding <=> {vector} AS distance
    FROM {chunk} AS c
    WHERE (SELECT count(*) < {k} FROM near) AND {matches}
    ORDER BY distance, document_key, chunk_index
    LIMIT {candidates}
),
dense AS (
    SELECT document_key, chunk_index, 1 - distance AS score,
        row_number() OVER (ORDER BY distance, document_key, chunk_index) AS rank
    FROM (
        SELECT * FROM compared
        UNION ALL
        SELECT * FROM near WHERE (SELECT count(*) >= {k} FROM near)
    ) AS either
)"""

_LEXICAL = """
lexical AS (
    SELECT document_key, chunk_index, score,
        row_number() OVER (ORDER BY score DESC, document_key, chunk_index) AS rank
    FROM (
        SELECT document_key, chunk_index, {lexical_score} AS score
        FROM {chunk} AS c
        WHERE {words_match} AND {matches}
        ORDER BY score DESC, document_key, chunk_index
        LIMIT {candidates}
    ) AS ranked
)"""

_DENSE_ONLY = """
best AS (
    SELECT document_key, chunk_index, score, score AS dense, rank AS dense_rank,
        NULL::float8 AS lexical, NULL::bigint AS lexical_rank
    FROM dense
)"""

_LEXICAL_ONLY = """
best AS (
    SELECT document_key, chunk_index, score, NULL::float8 AS dense, NULL::bigint AS dense_rank,
        score AS lexical, rank AS lexical_rank
    FROM lexical
)"""

_FUSED = """
best AS (
    SELECT *,
        {dense_weight} * coalesce(
            (dense - min(dense) OVER ()) / nullif(max(dense) OVER () - min(dense) OVER (), 0), 1
        ) + (1 - {dense_weight}) * coalesce(
            (lexical - min(lexical) OVER ())
            / nullif(max(lexical) OVER () - min(lexical) OVER (), 0), 0
        ) AS score
    FROM (
        SELECT document_key, chunk_index,
            coalesce(dense.score, {dense_score}) AS dense, dense.rank AS dense_rank,
            coalesce(lexical.score, {lexical_score}) AS lexical, lexical.rank AS lexical_rank
        FROM dense FULL JOIN lexical USING (document_key, chunk_index)
        JOIN {chunk} AS c USING (document_key, chunk_index)
    ) AS scored
)"""

# What the hits rest on (see `freshness`), of the snapshot that they are of.
_FLOOR = """
    (SELECT CASE count(*) WHEN {reach} THEN min(score) ELSE '-Infinity' END
        FROM %(list)s WHERE rank <= {reach})"""

_DOCUMENTS = "SELECT document_key FROM %(list)s WHERE rank <= {reach}"

_RESTS_ON = """
ground AS (
    SELECT epoch, word_revision, %(dense_floor)s AS dense_floor, %(lexical_floor)s AS lexical_floor,
        ARRAY(%(documents)s ORDER BY document_key) AS documents,
        %(compared_all)s AS compared_all
    FROM retriever.collection WHERE id = {collection_id}
)"""

# Of equal scores the nearer vector goes first. Without hits there is one
# row; the documents, which can be many, are in the first row only.
_HITS = """
SELECT ground.epoch, ground.word_revision, ground.dense_floor, ground.lexical_floor,
    ground.compared_all,
    CASE WHEN coalesce(best.place, 1) = 1 THEN ground.documents END AS documents,
    d.id AS document_id, d.version AS document_version, d.title, d.metadata,
    c.chunk_index, c.text, c.start_char, c.end_char, c.tokens,
    best.score, best.dense, best.dense_rank, best.lexical, best.lexical_rank
FROM ground LEFT JOIN (
    (
        SELECT *, row_number() OVER (
            ORDER BY score DESC, dense DESC NULLS LAST, document_key, chunk_index
        ) AS place
        FROM best ORDER BY place LIMIT {k}
    ) AS best
    JOIN {chunk} AS c USING (document_key, chunk_index)
    JOIN {document} AS d ON d.key = c.document_key
) ON TRUE
ORDER BY best.place"""

_LISTS = {
    Mode.DENSE: ("dense",),
    Mode.LEXICAL: ("lexical",),
    Mode.HYBRID: ("dense", "lexical"),
}

_PARTS = {
    "dense": _NEAR,
    "lexical": _LEXICAL,
    Mode.DENSE: _DENSE_ONLY,
    Mode.LEXICAL: _LEXICAL_ONLY,
    Mode.HYBRID: _FUSED,
}


def search_statement(
    collection: CollectionKey, query: SearchQuery, settings: Settings
) -> Statement:
    """Return the statement whose rows are the hits, best first, and what they rest on.

    Each row has `epoch`, `word_revision`, `dense_floor`, `lexical_floor` and `compared_all`, the
    first also `documents`. If there are no hits, there is one row, whose other columns are NULL.
    """
    lists = _LISTS[query.mode]
    parts = [*(_PARTS[each] for each in lists), _PARTS[query.mode], _ground(lists)]
    if "dense" in lists:
        parts.insert(0, _POPULATION if query.condition is None else _FILTERED_POPULATION)
    if "lexical" in lists:
        parts.insert(0, "{asked}")
    pieces = QueryParts(collection, query)
    candidates = max(query.k, settings.candidates)
    return Statement(
        sql.SQL("WITH" + ",".join(parts) + _HITS).format(
            **pieces.common,
            dimension=sql.Literal(collection.dimension),
            exact=sql.Literal(settings.exact_chunks),
            candidates=sql.Literal(candidates),
            # How much of each list decides about the hits.
            reach=sql.Literal(candidates if query.mode is Mode.HYBRID else query.k),
            k=sql.Literal(query.k),
            dense_weight=sql.Literal(settings.dense_weight),
        ),
        pieces.parameters,
    )


def _ground(lists: Sequence[str]) -> str:
    floors = {
        f"{each}_floor": _FLOOR % {"list": each} if each in lists else "'-Infinity'::float8"
        for each in ("dense", "lexical")
    }
    documents = " UNION ".join(_DOCUMENTS % {"list": each} for each in lists)
    compared_all = "(SELECT count(*) < {k} FROM near)" if "dense" in lists else "FALSE"
    return _RESTS_ON % (floors | {"documents": documents, "compared_all": compared_all})


def index_settings(settings: Settings) -> Statement:
    """Return the statement that sets up the scan of the index, for one transaction.

    Without iterative scans a filter that few chunks match finds nothing at all. A
    plan made once for all parameters would be one for no filter and no words in
    particular. At the default cost of a random page, made for disks that turn, the
    planner reads all chunks rather than the index of words.
    """
    return Statement(
        sql.SQL(
            "SELECT set_config('hnsw.iterative_scan', 'strict_order', true),"
            " set_config('hnsw.ef_search', %(ef_search)s, true),"
            " set_config('hnsw.max_scan_tuples', %(max_scan_tuples)s, true),"
            " set_config('hnsw.scan_mem_multiplier', '8', true),"
            " set_config('plan_cache_mode', 'force_custom_plan', true),"
            " set_config('random_page_cost', '1.1', true)"
        ),
        {
            "ef_search": str(settings.hnsw_ef_search),
            "max_scan_tuples": str(settings.hnsw_max_scan_tuples),
        },
    )
