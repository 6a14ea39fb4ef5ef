"""Answers a search: checks the query, and searches unless earlier hits still stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from quintet_retriever import vectors
from quintet_retriever.models import (
    CollectionKey,
    Found,
    Mode,
    SearchQuery,
    SearchRequest,
    SearchResult,
    SearchState,
    Verdict,
)
from quintet_retriever.search_state import decode_state, encode_state, request_digest
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.errors import Reason, ServiceError, Violation


class SearchStore(Protocol):
    """Where a collection is searched. Raises `CollectionGoneError` when it is not there
    any more."""

    async def search(self, key: CollectionKey, query: SearchQuery) -> Found:
        """Return the hits of the query."""

    async def judge(self, key: CollectionKey, query: SearchQuery, known: SearchState) -> Verdict:
        """Return whether the hits of the query that rest on `known` are still its hits."""


class Searcher:
    """Searches of the collections of one store; `candidates` is the service's setting."""

    def __init__(self, store: SearchStore, candidates: int) -> None:
        self._store = store
        self._candidates = candidates

    async def search(self, name: str, key: CollectionKey, request: SearchRequest) -> SearchResult:
        """Return the result of the request to the collection of that name and key.

        Raises MODEL_MISMATCH, DIMENSION_MISMATCH or INVALID_FIELD: a vector that is zero or
        not finite, or a consistency token of a write that the database does not have.
        """
        query = _query(name, key, request)
        digest = request_digest(request, self._candidates)
        result = await self._unchanged(
            key, query, decode_state(request.known_state, digest), digest
        )
        if result is None:
            found = await self._store.search(key, query)
            result = SearchResult(found.hits, found.state.epoch, encode_state(found.state, digest))
        if request.at_least is not None:
            _check_has(result.epoch, request.at_least)
        return result

    async def _unchanged(
        self, key: CollectionKey, query: SearchQuery, known: SearchState | None, digest: bytes
    ) -> SearchResult | None:
        if known is None or known.epoch.collection != key.id:
            return None
        verdict = await self._store.judge(key, query, known)
        if not verdict.unchanged:
            return None
        state = encode_state(replace(known, epoch=verdict.epoch), digest)
        return SearchResult((), verdict.epoch, state, unchanged=True)


def _query(name: str, key: CollectionKey, request: SearchRequest) -> SearchQuery:
    vector = None
    if request.mode is not Mode.LEXICAL:
        vectors.check_revision(name, key, request.embedding_revision)
        vector = vectors.unit_rows([("vector", request.vector)], key.dimension)[0]
    return SearchQuery(request.mode, request.text, vector, request.k, request.condition)


def _check_has(epoch: Epoch, at_least: Epoch) -> None:
    if epoch < at_least:
        # No write is ahead of the database: it was restored from a backup, or the token
        # was made up. Waiting would not help.
        field, fault = "consistency.at_least_as_fresh", "is of a write that the database lacks"
        raise ServiceError(
            Reason.INVALID_FIELD, f"{field} {fault}", violations=[Violation(field, fault)]
        )
