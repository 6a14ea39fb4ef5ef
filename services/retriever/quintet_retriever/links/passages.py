"""Finds passages one link away from what a search found: whose links are followed, what is
left out, and the statement that takes the best passage of each document that is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from quintet_retriever import vectors
from quintet_retriever.links.models import Link, PassageQuery, RelatedDocument, Seed
from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.query_sql import QueryParts
from quintet_servicekit.postgres.database import Statement

SEED_DOCUMENTS = 10
"""Documents whose links are followed: twice what an answer rests on by default."""
FAN_OUT = 25
"""Links that are followed of each and direction."""
REACHED = SEED_DOCUMENTS * FAN_OUT * 2
"""Documents that are reached at most."""

# Of each document the chunk with the best score, of the documents the best.
_BEST = """
SELECT d.id AS document_id, d.version AS document_version, d.title, d.metadata,
    c.chunk_index, c.text, c.start_char, c.end_char, c.tokens,
    b.score, {dense} AS dense, NULL::bigint AS dense_rank,
    {lexical} AS lexical, NULL::bigint AS lexical_rank
FROM (
    SELECT DISTINCT ON (c.document_key) c.document_key, c.chunk_index, {score} AS score
    FROM {chunk} AS c
    WHERE c.document_key = ANY (
            SELECT key FROM {document} WHERE id = ANY (%(linked)s::text[])
        ) AND {found} AND {matches}
    ORDER BY c.document_key, score DESC, c.chunk_index
) AS b
JOIN {chunk} AS c USING (document_key, chunk_index)
JOIN {document} AS d ON d.key = b.document_key
ORDER BY b.score DESC, d.id LIMIT %(limit)s"""


def search_of(name: str, key: CollectionKey, query: PassageQuery) -> SearchQuery:
    """Return the search for the question: by its vector, or else by its words.

    Raises MODEL_MISMATCH, DIMENSION_MISMATCH, or INVALID_FIELD for a vector that is zero
    or not finite.
    """
    if not query.vector:
        return SearchQuery(Mode.LEXICAL, query.text, None, query.limit, query.condition)
    vectors.check_revision(name, key, query.embedding_revision)
    vector = vectors.unit_rows([("vector", query.vector)], key.dimension)[0]
    return SearchQuery(Mode.DENSE, "", vector, query.limit, query.condition)


def stretches_of(seeds: Iterable[Seed]) -> dict[str, list[Seed]]:
    """Return what was found of each document, by its id, the best first."""
    stretches: dict[str, list[Seed]] = {}
    for seed in seeds:
        stretches.setdefault(seed.document_id, []).append(seed)
    return stretches


def links_to_new(
    reached: Iterable[RelatedDocument], found: Mapping[str, Sequence[Seed]]
) -> dict[str, Link]:
    """Return, by the id of each document that was reached and not `found` before, the link
    that leads there, with one place."""
    return {
        it.document_id: _with_one_place(it.path[0], found)
        for it in reached
        if it.document_id not in found
    }


def _with_one_place(link: Link, found: Mapping[str, Sequence[Seed]]) -> Link:
    stretches = found.get(link.source_id, ())
    within = (
        place
        for place in link.occurrences
        if any(place.start < it.end and place.end > it.start for it in stretches)
    )
    place = next(within, next(iter(link.occurrences), None))
    return replace(link, occurrences=(place,) if place else ())


def best_passages(key: CollectionKey, query: SearchQuery, documents: Sequence[str]) -> Statement:
    """Return the statement whose rows are the best passages of the documents, one each."""
    parts = QueryParts(key, query)
    nothing = sql.SQL("NULL::float8")
    dense = query.mode is Mode.DENSE
    head = sql.SQL("") if dense else sql.SQL("WITH {asked}").format(**parts.common)
    statement = head + sql.SQL(_BEST).format(
        **parts.common,
        score=parts.common["dense_score" if dense else "lexical_score"],
        found=sql.SQL("TRUE") if dense else parts.common["words_match"],
        dense=sql.SQL("b.score") if dense else nothing,
        lexical=nothing if dense else sql.SQL("b.score"),
    )
    return Statement(statement, {**parts.parameters, "linked": list(documents), "limit": query.k})
