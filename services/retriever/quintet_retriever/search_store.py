"""Searches a collection in PostgreSQL, and tells whether earlier hits are still its hits."""

from __future__ import annotations

from quintet_retriever.database import Database
from quintet_retriever.freshness import verdict_statement
from quintet_retriever.models import (
    CollectionGoneError,
    CollectionKey,
    Found,
    Hit,
    SearchQuery,
    SearchState,
    Verdict,
)
from quintet_retriever.search_sql import index_settings, search_statement
from quintet_retriever.settings import Settings
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.postgres.database import Operation

_OF_ALL = (
    "epoch",
    "word_revision",
    "dense_floor",
    "lexical_floor",
    "documents",
    "compared_all",
)
"""Columns that are not a hit's own."""


class PostgresSearch:
    """Implements `SearchStore`. Each call is one round trip and one snapshot."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def search(self, key: CollectionKey, query: SearchQuery) -> Found:
        """Return the hits of the query."""
        rows = await self._database.run(
            Operation("SELECT", "chunk", "SELECT chunk SELECT document SELECT collection"),
            index_settings(self._settings),
            search_statement(key, query, self._settings),
        )
        if not rows:
            raise CollectionGoneError
        state = SearchState(
            Epoch(key.id, rows[0]["epoch"]),
            rows[0]["dense_floor"],
            rows[0]["lexical_floor"],
            tuple(rows[0]["documents"]),
            rows[0]["word_revision"],
        )
        compared_all = rows[0]["compared_all"]
        for row in rows:
            for name in _OF_ALL:
                del row[name]
        hits = tuple(
            Hit(start=row.pop("start_char"), end=row.pop("end_char"), **row)
            for row in rows
            if row["document_id"] is not None
        )
        return Found(hits, state, compared_all)

    async def judge(self, key: CollectionKey, query: SearchQuery, known: SearchState) -> Verdict:
        """Return whether the hits of the query that rest on `known` are still its hits."""
        rows = await self._database.run(
            Operation("SELECT", "change", "SELECT collection SELECT change SELECT chunk"),
            index_settings(self._settings),
            verdict_statement(key, query, known, self._settings.max_changes),
        )
        if not rows:
            raise CollectionGoneError
        (row,) = rows
        return Verdict(Epoch(key.id, row["epoch"]), row["unchanged"], row["invalidated"])
