"""Builds the one statement of a search.

Dense candidates come from the HNSW index, or from comparing all chunks where few
come into question or the index gave too few; lexical ones from the GIN index.
Both lists are fused by reciprocal rank (Cormack, Clarke and Büttcher, SIGIR 2009).
"""

from __future__ import annotations

from psycopg import sql

from quintet_retriever.database import Statement
from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.settings import Settings
from quintet_retriever.tables import Tables

RRF_K = 60
"""The constant of reciprocal rank fusion, as published."""

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

# The filter is a subquery that cannot become a join (OFFSET 0), so that the order
# of the index is kept and each chunk is asked for as the scan meets it.
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

# ts_rank divided by 1 + log(length) ranks better than ts_rank_cd and costs a third
# on questions of any words: nDCG@10 .62 against .37 on SciFact, .32 against .21 on
# Cranfield.
_LEXICAL = """
lexical AS (
    SELECT document_key, chunk_index, score,
        row_number() OVER (ORDER BY score DESC, document_key, chunk_index) AS rank
    FROM (
        SELECT document_key, chunk_index,
            ts_rank(words, retriever.any_word_query({text}), 1)::float8 AS score
        FROM {chunk} AS c
        WHERE words @@ retriever.any_word_query({text}) AND {matches}
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
    SELECT document_key, chunk_index,
        coalesce(1.0::float8 / ({rrf_k} + dense.rank), 0)
            + coalesce(1.0::float8 / ({rrf_k} + lexical.rank), 0) AS score,
        dense.score AS dense, dense.rank AS dense_rank,
        lexical.score AS lexical, lexical.rank AS lexical_rank
    FROM dense FULL JOIN lexical USING (document_key, chunk_index)
)"""

# Fused scores are often equal: the nearer vector goes first.
_HITS = """
SELECT d.id AS document_id, d.version AS document_version, d.title, d.metadata,
    c.chunk_index, c.text, c.start_char, c.end_char, c.tokens,
    best.score, best.dense, best.dense_rank, best.lexical, best.lexical_rank
FROM (
    SELECT * FROM best
    ORDER BY score DESC, dense DESC NULLS LAST, document_key, chunk_index
    LIMIT {k}
) AS best
JOIN {chunk} AS c USING (document_key, chunk_index)
JOIN {document} AS d ON d.key = c.document_key
ORDER BY best.score DESC, best.dense DESC NULLS LAST, c.document_key, c.chunk_index"""

_PARTS = {
    Mode.DENSE: (_NEAR, _DENSE_ONLY),
    Mode.LEXICAL: (_LEXICAL, _LEXICAL_ONLY),
    Mode.HYBRID: (_NEAR, _LEXICAL, _FUSED),
}


def search_statement(
    collection: CollectionKey, query: SearchQuery, settings: Settings
) -> Statement:
    """Return the statement whose rows are the hits, best first."""
    tables = Tables.of(collection.id)
    parameters: dict[str, object] = {"text": query.text, "vector": query.vector}
    condition: sql.SQL | sql.Composed = sql.SQL("TRUE")
    matches = matches_each = condition
    population = _POPULATION
    if query.condition is not None:
        population = _FILTERED_POPULATION
        rendered = FilterSql(query.condition, sql.SQL("d.metadata"))
        parameters |= rendered.parameters
        condition = rendered.sql
        matching = sql.SQL("SELECT d.key FROM {} AS d WHERE {}").format(tables.document, condition)
        matches = sql.SQL("document_key IN ({})").format(matching)
        matches_each = sql.SQL("EXISTS ({} AND d.key = c.document_key OFFSET 0)").format(matching)
    parts = _PARTS[query.mode]
    if _NEAR in parts:
        parts = (population, *parts)
    return Statement(
        sql.SQL("WITH" + ",".join(parts) + _HITS).format(
            collection_id=sql.Literal(collection.id),
            chunk=tables.chunk,
            document=tables.document,
            condition=condition,
            matches=matches,
            matches_each=matches_each,
            vector=sql.SQL("%(vector)s::vector"),
            text=sql.SQL("%(text)s::text"),
            dimension=sql.Literal(collection.dimension),
            exact=sql.Literal(settings.exact_chunks),
            candidates=sql.Literal(max(query.k, settings.candidates)),
            k=sql.Literal(query.k),
            rrf_k=sql.Literal(RRF_K),
        ),
        parameters,
    )


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
