"""Answers a search: from the cache if that is fresh enough, else from the database, which is
also asked whether the hits that a caller has still stand.

What a search finds depends on the request and on the collection's epoch, so that a
cached result is never wrong for the epoch in its key. It is served when that epoch is
the collection's present one, which is known from the news (`EpochWatch`) or not at all.
"""

from __future__ import annotations

import time
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
    Tuning,
    Verdict,
)
from quintet_retriever.search_state import decode_state, encode_state, request_digest
from quintet_retriever.spans import retrieval
from quintet_servicekit.cache import Cache, Computed, key_of
from quintet_servicekit.cache.use import CacheUse, note_use, use_of
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.epochs import EpochWatch
from quintet_servicekit.errors import Reason, ServiceError, Violation

TIER = "l3"


class SearchStore(Protocol):
    """Where a collection is searched. Raises `CollectionGoneError` when it is not there
    any more."""

    async def search(self, key: CollectionKey, query: SearchQuery) -> Found:
        """Return the hits of the query."""

    async def judge(self, key: CollectionKey, query: SearchQuery, known: SearchState) -> Verdict:
        """Return whether the hits of the query that rest on `known` are still its hits."""


class Searcher:
    """Searches of the collections of one store."""

    def __init__(
        self, store: SearchStore, cache: Cache[SearchResult], watch: EpochWatch, tuning: Tuning
    ) -> None:
        self._store = store
        self._cache = cache
        self._watch = watch
        self._tuning = tuning

    async def search(
        self, name: str, key: CollectionKey, request: SearchRequest
    ) -> tuple[SearchResult, CacheUse]:
        """Return the result of the request to the collection of that name and key, and
        what the cache did.

        Raises MODEL_MISMATCH, DIMENSION_MISMATCH or INVALID_FIELD: a vector that is zero or
        not finite, or a consistency token of a write that the database does not have.
        """
        search = _Search(self, name, key, request)
        with retrieval(name, request) as observation:
            if request.known_state:
                result, use = await search.compared(), CacheUse(TIER, "bypass")
            elif request.fully_consistent:
                result, use = await search.run(), CacheUse(TIER, "bypass")
            else:
                result, use = await search.kept()
            observation.found(result)
        if request.at_least is not None:
            _check_has(result.epoch, request.at_least)
        use = replace(use, epoch=result.epoch.number)
        note_use(use)
        return result, use


class _Search:
    """One request, checked."""

    def __init__(
        self, searcher: Searcher, name: str, key: CollectionKey, request: SearchRequest
    ) -> None:
        self._store = searcher._store
        self._cache = searcher._cache
        self._watch = searcher._watch
        self._name = name
        self._key = key
        self._request = request
        self._query = _query(name, key, request)
        self._digest = request_digest(request, searcher._tuning)

    async def kept(self) -> tuple[SearchResult, CacheUse]:
        """Return the cached result if the collection's epoch is known and late enough."""
        epoch = self._watch.known(self._name)
        least = self._request.at_least
        # Another collection of the name was known, or the news of this write is on its way.
        if epoch is None or epoch.collection != self._key.id or (least and epoch < least):
            return await self.run(), CacheUse(TIER, "miss")

        async def load() -> Computed[SearchResult]:
            # What it finds may be of a later epoch: `run` keeps it, under that one's key.
            return Computed(await self.run(), store=False)

        found = await self._cache.get_or_load(
            self._cache_key(epoch), load, allow_stale=False, across_replicas=False
        )
        return found.value, use_of(TIER, [found])

    async def compared(self) -> SearchResult:
        """Return that the hits of the request's state are unchanged, or the present ones."""
        known = decode_state(self._request.known_state, self._digest)
        if known is None or known.epoch.collection != self._key.id:
            return replace(await self.run(), invalidated=True)
        verdict = await self._judged(known)
        if verdict.unchanged:
            state = encode_state(replace(known, epoch=verdict.epoch), self._digest)
            return SearchResult((), verdict.epoch, state, unchanged=True)
        result = await self.run()
        if result.epoch != verdict.epoch and not verdict.invalidated:
            # Between the two they may have been declared out of date.
            verdict = await self._judged(known)
        return replace(result, invalidated=verdict.invalidated)

    async def _judged(self, known: SearchState) -> Verdict:
        mark = self._watch.mark()
        verdict = await self._store.judge(self._key, self._query, known)
        self._watch.note(self._name, verdict.epoch, mark)
        return verdict

    async def run(self) -> SearchResult:
        """Search the database, and keep the result where epochs are known at all."""
        mark = self._watch.mark()
        began = time.perf_counter()
        found = await self._store.search(self._key, self._query)
        epoch = found.state.epoch
        result = SearchResult(
            found.hits,
            epoch,
            encode_state(found.state, self._digest),
            compared_all=found.compared_all,
        )
        if mark is not None:
            cost = time.perf_counter() - began
            self._watch.note(self._name, epoch, mark)
            self._cache.put(self._cache_key(epoch), result, cost_seconds=cost)
        return result

    def _cache_key(self, epoch: Epoch) -> str:
        return key_of(epoch.collection, epoch.number, self._digest)


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
