"""The rule by which a later write leaves the hits of a search as they are.

Hits come from one or two ranked lists of chunks: the dense one by cosine, the lexical
one by BM25. The cosine depends on the query and the chunk alone, BM25 on the collection's counts of
words too, which stay as they are until they are counted anew under a new revision. Under one
revision a change therefore leaves a list as it is unless it touched a document that has a chunk in
it, or wrote a chunk that comes into question and whose score reaches the list's last
one (its floor; negative infinity for a list that had room). If all lists stay as they
are, so do the hits, however they are fused. docs/adr/0005 has the proofs, and what
"reaches" means where the index is approximate.

Under another revision of the counts nothing is said of a list by words: every score in it may
have moved.
"""

from __future__ import annotations

from psycopg import sql

from quintet_retriever.models import CollectionKey, Mode, SearchQuery, SearchState
from quintet_retriever.query_sql import QueryParts
from quintet_servicekit.postgres.database import Statement

TOLERANCE = 1e-6
"""How far below a floor a score still reaches it: a server with another instruction
set may add up a cosine of 32-bit floats in another order."""

_DENSE = "{dense_score} >= {dense_floor}"
_LEXICAL = "({words_match} AND {lexical_score} >= {lexical_floor})"

_COULD_ENTER = {
    Mode.DENSE: _DENSE,
    Mode.LEXICAL: _LEXICAL,
    Mode.HYBRID: f"({_DENSE} OR {_LEXICAL})",
}

# CASE asks in order and evaluates a subquery only when its turn comes. The epoch and
# the changes are of one snapshot, so that a change is missing only if it was pruned.
# Arrays instead of joins: whatever the planner guesses, it reads the changed documents
# by their index.
_VERDICT = """
WITH {asked}changed AS MATERIALIZED (
    SELECT document_key, invalidated, document_key IS NULL OR document_key = ANY ({known}) AS ours
    FROM retriever.change WHERE collection_id = {collection_id} AND epoch > {since}
),
told AS MATERIALIZED (
    SELECT count(*) AS changes, bool_or(ours) AS touched, bool_or(ours AND invalidated) AS revoked
    FROM changed
),
rewritten AS MATERIALIZED (SELECT array(SELECT DISTINCT document_key FROM changed) AS keys)
SELECT now.epoch, CASE
    WHEN now.epoch = {since} THEN TRUE
    WHEN {recounted} THEN FALSE
    WHEN now.epoch - {since} NOT BETWEEN 0 AND {most} THEN FALSE
    WHEN (SELECT changes FROM told) <> now.epoch - {since} THEN FALSE
    WHEN (SELECT touched FROM told) THEN FALSE
    WHEN (SELECT sum(chunk_count) FROM {document}
        WHERE key = ANY ((SELECT keys FROM rewritten)::bigint[])) > {most} THEN FALSE
    ELSE NOT EXISTS (
        SELECT FROM {chunk} AS c
        WHERE document_key = ANY ((SELECT keys FROM rewritten)::bigint[])
            AND {could_enter} AND {matches_each}
    )
END AS unchanged, CASE
    WHEN now.epoch = {since} THEN FALSE
    WHEN (SELECT changes FROM told) <> now.epoch - {since} THEN TRUE
    ELSE (SELECT revoked FROM told)
END AS invalidated
FROM retriever.collection AS now WHERE id = {collection_id}"""


def verdict_statement(
    collection: CollectionKey, query: SearchQuery, known: SearchState, most_changes: int
) -> Statement:
    """Return the statement whose one row has the collection's `epoch`, `unchanged`, and
    `invalidated`: whether the hits were declared out of date, or may have been.

    More than `most_changes` writes, or chunks that they wrote, count as a change
    without being looked at.
    """
    parts = QueryParts(collection, query)
    parameters = parts.parameters | {
        "since": known.epoch.number,
        "known": list(known.documents),
        "dense_floor": known.dense_floor - TOLERANCE,
        "lexical_floor": known.lexical_floor - TOLERANCE,
        "word_revision": known.word_revision,
    }
    common = parts.common | {
        "since": sql.SQL("%(since)s::bigint"),
        "known": sql.SQL("%(known)s::bigint[]"),
        "dense_floor": sql.SQL("%(dense_floor)s::float8"),
        "lexical_floor": sql.SQL("%(lexical_floor)s::float8"),
        "most": sql.Literal(most_changes),
    }
    by_words = query.mode is not Mode.DENSE
    common["asked"] = parts.common["asked"] + sql.SQL(", ") if by_words else sql.SQL("")
    common["recounted"] = sql.SQL("now.word_revision <> %(word_revision)s" if by_words else "FALSE")
    could_enter = sql.SQL(_COULD_ENTER[query.mode]).format(**common)
    return Statement(sql.SQL(_VERDICT).format(could_enter=could_enter, **common), parameters)
