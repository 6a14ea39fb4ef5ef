"""L1: whole answers that are kept, and whether they still hold.

A kept answer holds at the epoch at which it was last found to hold. At another one
the retriever is asked whether anything was written since that concerns its passages;
see docs/adr/0005 for the rule. So nothing is ever dropped because of a write, and
nothing is served that a write concerns. An answer for which links were followed holds at
its epoch alone, since any write may concern them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import kept_answer_pb2 as kept_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.degradation import out_of_time
from quintet_gateway.freshness import Freshness
from quintet_gateway.question import Question, searched_for
from quintet_gateway.searching import Found, Query, QueryVector, Searcher
from quintet_servicekit import cache
from quintet_servicekit.cache.use import CacheUse, UseOutcome, note_use
from quintet_servicekit.cache_service import use_message
from quintet_servicekit.consistency import Epoch, decode_token
from quintet_servicekit.epochs import EpochNews
from quintet_servicekit.errors import Reason, ServiceError

SCHEMA = 1
"""Raise it when KeptAnswer changes in a way that older gateways would misread."""


Entry = cache.Found[kept_pb.KeptAnswer]
"""A kept answer as it was found."""


@dataclass(frozen=True, slots=True)
class Served:
    """A kept answer that is served, and how."""

    kept: kept_pb.KeptAnswer
    about: pb.AnswerCache

    @property
    def epoch(self) -> Epoch:
        """The epoch at which the answer was last found to hold."""
        return epoch_of(self.kept)


@dataclass(frozen=True, slots=True)
class Outdated:
    """A kept answer does not hold any more; `found` is what the question finds now.

    `standing` is the answer all the same, where each of its passages is still found as
    it was and the request takes what may be stale: it lacks what was written since, and
    says nothing that is not in the documents.
    """

    found: Found
    standing: Entry | None


class KeptAnswers:
    """Keeps answers and serves those that hold.

    `news` reaches the other replicas; None without Redis, and so without others.
    """

    def __init__(
        self,
        tier: cache.Cache[kept_pb.KeptAnswer],
        searcher: Searcher,
        freshness: Freshness,
        news: EpochNews | None,
    ) -> None:
        self._tier = tier
        self._news = news
        self._searcher = searcher
        self._freshness = freshness

    async def look_up(self, chain: Chain, question: Question) -> Served | Outdated | None:
        """Return the kept answer of a question, if it is there and holds.

        Raises `ServiceError` as the retriever does, unless the retriever is away and the
        request takes what may be stale.
        """
        return await self.serve(chain, question, question.key)

    async def serve(
        self, chain: Chain, question: Question, key: str, tier: str = "l1"
    ) -> Served | Outdated | None:
        """Return the kept answer under `key`, which is the question's or that of another
        question in the same scope, if it is there and holds; raises as `look_up`."""
        known = self._freshness.known(question.collection)

        def holds(found: Entry) -> bool:
            return question.need.met_by(epoch_of(found.value), known)

        entry = await self._tier.get(key)
        if entry is None:
            return None
        if known is not None and entry.store == "memory" and not holds(entry):
            # Another replica may have made it anew, or found it to hold, since.
            entry = await self._tier.get(key, accept=holds) or entry
        kept = entry.value
        if holds(entry):
            return Served(kept, _about(entry, "hit", tier))
        # That nothing was found is an error, which cannot say that it may be stale.
        as_stale = not kept.no_passages and entry.age_seconds < question.max_staleness_seconds
        if as_stale and chain.is_short("Search"):
            return self.stale(chain, entry, "revalidation", out_of_time("revalidation"), tier)
        query = question.query(self._freshness.demand(question.collection, question.need))
        try:
            found = await self._searcher.search(
                chain,
                _as_kept(query, kept),
                _vector(question, kept),
                # Its state says nothing of the links that it rests on.
                b"" if question.follows_links else kept.state,
                replaceable=as_stale,
            )
        except ServiceError as error:
            if error.reason is Reason.MODEL_MISMATCH:
                return None
            if not as_stale:
                raise
            return self.stale(chain, entry, "retriever", error, tier)
        if question.follows_links:
            same = decode_token(question.collection, found.token) == epoch_of(kept)
        else:
            same = not found.invalidated and digest(found.hits) == kept.hits_digest
        if not (found.unchanged or same):
            if key != question.key:
                return None
            standing = as_stale and not found.invalidated and _still_found(kept, found.hits)
            return Outdated(found, entry if standing else None)
        self.keep(key, _at(kept, question.collection, found), entry.saved_seconds)
        return Served(kept, _about(entry, "revalidated", tier))

    def stale(
        self,
        chain: Chain,
        entry: Entry,
        hop: str,
        error: ServiceError,
        tier: str = "l1",
    ) -> Served:
        """Return a kept answer that may be out of date, for what failed with `error` at
        `hop`. Raises `error` where nothing may be served instead."""
        chain.degradations.pass_over(
            hop,
            error,
            pb.SUBSTITUTE_STALE_ANSWER,
            "an answer from before, which may be out of date",
            age_seconds=entry.age_seconds,
        )
        return Served(entry.value, _about(entry, "stale", tier))

    def at_hand(self, question: Question) -> Served | None:
        """Return the kept answer of a question if this replica's memory has it and it is
        known to hold: what one finds who comes just after it was made."""
        if not question.may_be_kept:
            return None
        known = self._freshness.known(question.collection)
        entry = self._tier.peek(
            question.key,
            accept=lambda found: question.need.met_by(epoch_of(found.value), known),
        )
        return None if entry is None else Served(entry.value, _about(entry, "hit"))

    async def peek(self, question: Question) -> Served | None:
        """Return the kept answer of a question, and how it would be served; asks nobody
        whether it holds."""
        entry = await self._tier.get(question.key)
        if entry is None:
            return None
        known = self._freshness.known(question.collection)
        if question.need.met_by(epoch_of(entry.value), known):
            return Served(entry.value, _about(entry, "hit"))
        about = _about(entry, "hit")
        # Nothing tells yet: the database would.
        about.use.outcome = cache_pb.CACHE_OUTCOME_UNSPECIFIED
        return Served(entry.value, about)

    async def purge(self, question: Question) -> int:
        """Drop the kept answer of a question everywhere; return how many there were."""
        there = await self._tier.get(question.key) is not None
        told = await self._tier.delete([question.key])
        if self._news is not None:
            try:
                await self._news.forget([question.key])
            except cache.AwayError:
                told = False
        if not told:
            raise ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "dropped here, but Redis and other replicas could not be told; ask again",
                metadata={"dependency": "redis"},
                retry_after=1.0,
            )
        return int(there)

    def keep(self, key: str, kept: kept_pb.KeptAnswer, cost_seconds: float) -> None:
        """Keep an answer that took `cost_seconds`."""
        self._tier.put(key, kept, cost_seconds=cost_seconds)

    def compose(
        self, question: Question, found: Found, response: pb.AskResponse | None
    ) -> kept_pb.KeptAnswer:
        """Return what is kept of an answer; of none where the search found nothing."""
        kept = kept_pb.KeptAnswer(
            question=question.text,
            vector=found.vector.packed if found.vector else b"",
            no_passages=response is None,
            made_ms=int(time.time() * 1000),
            hits_digest=digest(found.hits),
        )
        if response is not None:
            kept.response.CopyFrom(response)
            for field in ("trail", "cache", "consistency_token"):
                kept.response.ClearField(field)
        return _at(kept, question.collection, found)


def epoch_of(kept: kept_pb.KeptAnswer) -> Epoch:
    """Return the epoch at which an answer was last found to hold."""
    return Epoch(kept.epoch_collection, kept.epoch_number)


def digest(hits: Sequence[retriever_pb.Hit]) -> bytes:
    """Return a digest of what was found, in its order, but for the scores."""
    state = hashlib.blake2b(digest_size=16)
    for hit in hits:
        state.update(_bare(hit))
    return state.digest()


def _bare(hit: retriever_pb.Hit) -> bytes:
    # The text too: versions begin anew with a document that was deleted.
    bare = retriever_pb.Hit()
    bare.CopyFrom(hit)
    bare.ClearField("score")
    bare.ClearField("scores")
    return bare.SerializeToString(deterministic=True)


def _still_found(kept: kept_pb.KeptAnswer, hits: Sequence[retriever_pb.Hit]) -> bool:
    return {_bare(it.hit) for it in kept.response.passages} <= {_bare(hit) for hit in hits}


def _at(kept: kept_pb.KeptAnswer, collection: str, found: Found) -> kept_pb.KeptAnswer:
    epoch = decode_token(collection, found.token)
    kept.state = found.state
    kept.epoch_collection, kept.epoch_number = epoch.collection, epoch.number
    return kept


def _as_kept(query: Query, kept: kept_pb.KeptAnswer) -> Query:
    return replace(query, text=searched_for(kept.question))


def _vector(question: Question, kept: kept_pb.KeptAnswer) -> QueryVector | None:
    if not kept.vector:
        return None
    return QueryVector(kept.vector, question.embedding.revision, 0)


def _about(entry: Entry, outcome: UseOutcome, tier: str = "l1") -> pb.AnswerCache:
    kept = entry.value
    use = CacheUse(
        tier,
        outcome,
        store=entry.store,
        # Since it was made, not since it was last found to hold. Clocks of two
        # replicas may differ.
        age_seconds=max(0.0, time.time() - kept.made_ms / 1000),
        saved_seconds=entry.saved_seconds,
        hits=1,
        epoch=kept.epoch_number,
    )
    note_use(use)
    return pb.AnswerCache(
        use=use_message(use), possibly_stale=outcome == "stale", saved=kept.response.usage
    )
