"""The pieces of SQL that a search and the check of its freshness share, so that both
give a chunk the same score and a filter the same meaning."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.models import CollectionKey, SearchQuery
from quintet_retriever.tables import Tables

# ts_rank divided by 1 + log(length) ranks better than ts_rank_cd and costs a third
# on questions of any words: nDCG@10 .62 against .37 on SciFact, .32 against .21 on
# Cranfield.
_LEXICAL_SCORE = "ts_rank(words, retriever.any_word_query({text}), 1)::float8"


class QueryParts:
    """`common`: pieces by name, of expressions on the chunk `c` among others; `parameters`:
    the values of their placeholders."""

    def __init__(self, collection: CollectionKey, query: SearchQuery) -> None:
        tables = Tables.of(collection.id)
        vector, text = sql.SQL("%(vector)s::vector"), sql.SQL("%(text)s::text")
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
            matches = sql.SQL("document_key IN ({})").format(matching)
            # A subquery that cannot become a join (OFFSET 0): the order of an index is
            # kept, and each chunk is asked for as the scan meets it.
            matches_each = sql.SQL("EXISTS ({} AND d.key = c.document_key OFFSET 0)").format(
                matching
            )
        self.common: dict[str, sql.Composable] = {
            "collection_id": sql.Literal(collection.id),
            "chunk": tables.chunk,
            "document": tables.document,
            "condition": condition,
            "matches": matches,
            "matches_each": matches_each,
            "vector": vector,
            "dense_score": sql.SQL("(1 - (embedding <=> {}))").format(vector),
            "words_match": sql.SQL("words @@ retriever.any_word_query({})").format(text),
            "lexical_score": sql.SQL(_LEXICAL_SCORE).format(text=text),
        }
