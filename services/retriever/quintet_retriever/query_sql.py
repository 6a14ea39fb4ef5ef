"""The pieces of SQL that a search and the check of its freshness share, so that both
give a chunk the same score and a filter the same meaning.

Words are scored by BM25 (Robertson and Zaragoza, 2009, with Lucene's idf). A chunk's length is
the number of its model's tokens. How many chunks have a word is looked up in the
collection's table of words, which is counted anew now and then: docs/adr/0011.
"""

from __future__ import annotations

import re
from typing import Any

from psycopg import sql

from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.tables import Tables

MAX_PHRASES = 16
"""Phrases of a query that must appear; the words of more count as words."""

_PHRASE = re.compile('"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»')

# One row: the query's words with their weights, NULL where it has none. A word that was
# in no chunk when they were counted weighs most.
_ASKED = """
asked AS MATERIALIZED (
    SELECT array_agg(lexeme) AS lexemes, array_agg(weight) AS weights,
        string_agg(
            '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', ' | '
        )::tsquery AS any_word,
        min(mean_tokens) AS mean_tokens
    FROM (
        SELECT lexeme, mean_tokens,
            ln((counted_chunks + 1) / (least(coalesce((
                SELECT chunks FROM {word} AS w WHERE w.lexeme = u.lexeme
            ), 0), counted_chunks) + 0.5::float8)) AS weight
        FROM retriever.collection, unnest(to_tsvector({language}, {text})) AS u
        WHERE id = {collection_id}
    ) AS weighed
)"""

# Only the query's words are left of the chunk's, in C, before any is looked at.
_BM25 = """(
    SELECT coalesce(sum(
        asked.weights[array_position(asked.lexemes, u.lexeme)] * cardinality(u.positions)
        / (cardinality(u.positions) + 1.5 * (0.25 + 0.75 * c.tokens / asked.mean_tokens))
    ), 0)
    FROM asked, unnest(ts_filter(setweight(c.words, 'A', asked.lexemes), '{a}')) AS u
)"""

_WORDS_MATCH = "c.words @@ (SELECT any_word FROM asked)"


class QueryParts:
    """`common`: pieces by name, of expressions on the chunk `c` among others; `parameters`:
    the values of their placeholders. The words' pieces need the CTE `asked`."""

    def __init__(self, collection: CollectionKey, query: SearchQuery) -> None:
        tables = Tables.to_read(collection.id)
        vector, text = sql.SQL("%(vector)s::vector"), sql.SQL("%(text)s::text")
        language = sql.SQL("{}::regconfig").format(
            sql.Literal(f"retriever.words_{collection.language}")
        )
        self.parameters: dict[str, Any] = {"text": query.text, "vector": query.vector}
        condition: sql.SQL | sql.Composed = sql.SQL("TRUE")
        matches = matches_each = condition
        if query.condition is not None:
            rendered = FilterSql(query.condition, sql.SQL("d.metadata"))
            self.parameters |= rendered.parameters
            condition = rendered.sql
            matching = sql.SQL("SELECT d.key FROM {} AS d WHERE {}").format(
                tables.document, condition
            )
            matches = sql.SQL("c.document_key IN ({})").format(matching)
            # A subquery that cannot become a join (OFFSET 0): the order of an index is
            # kept, and each chunk is asked for as the scan meets it.
            matches_each = sql.SQL("EXISTS ({} AND d.key = c.document_key OFFSET 0)").format(
                matching
            )
        wanted = [] if query.mode is Mode.DENSE else phrases(query.text)
        for number, phrase in enumerate(wanted):
            name = f"phrase_{number}"
            self.parameters[name] = phrase
            # A phrase of nothing but the commonest words asks for nothing.
            has = sql.SQL(
                " AND (numnode(phraseto_tsquery({language}, {phrase})) = 0"
                " OR c.words @@ phraseto_tsquery({language}, {phrase}))"
            ).format(language=language, phrase=sql.SQL("%({})s::text").format(sql.SQL(name)))
            matches, matches_each = matches + has, matches_each + has
        self.common: dict[str, sql.Composable] = {
            "collection_id": sql.Literal(collection.id),
            "chunk": tables.chunk,
            "document": tables.document,
            "condition": condition,
            "matches": matches,
            "matches_each": matches_each,
            "vector": vector,
            "dense_score": sql.SQL("(1 - (c.embedding <=> {}))").format(vector),
            "words_match": sql.SQL(_WORDS_MATCH),
            "lexical_score": sql.SQL(_BM25),
        }
        self.common["asked"] = sql.SQL(_ASKED).format(
            word=tables.word, language=language, text=text, **self.common
        )


def phrases(text: str) -> list[str]:
    """Return what stands in double quotes: straight, English, German or French."""
    found = ["".join(groups) for groups in _PHRASE.findall(text)]
    return found[:MAX_PHRASES]
