"""What operators ask of the caches: how they are used, what they would do with a
question, and to drop what they keep."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.freshness import Freshness
from quintet_gateway.kept import KeptAnswers
from quintet_gateway.question import Question, Questions
from quintet_servicekit.cache_service import CacheServicer
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.errors import ServiceError

Context = grpc.aio.ServicerContext[Any, Any]


class CacheAdmin:
    """Asks all services about their caches; `own` answers for the gateway's."""

    def __init__(
        self,
        services: Services,
        own: CacheServicer,
        questions: Questions,
        kept: KeptAnswers,
        freshness: Freshness,
    ) -> None:
        self._services = services
        self._own = own
        self._questions = questions
        self._kept = kept
        self._freshness = freshness

    async def stats(self, chain: Chain, context: Context) -> pb.GetCacheStatsResponse:
        """Return the tiers of the gateway and of one replica of each service, by name."""
        own = await self._own.GetStats(cache_pb.GetStatsRequest(), context)
        mine = pb.ServiceCaches(
            service="gateway",
            reachable=True,
            tiers=own.tiers,
            redis_available=own.redis_available,
        )
        others = await asyncio.gather(
            *(self._stats_of(chain, name) for name in self._services.connections)
        )
        found = sorted((mine, *others), key=lambda caches: caches.service)
        return pb.GetCacheStatsResponse(services=found)

    async def _stats_of(self, chain: Chain, name: str) -> pb.ServiceCaches:
        connection = self._services.connections[name]
        try:
            stats = await chain.unary(
                connection.cache_peer,
                "GetStats",
                connection.caches.GetStats,
                cache_pb.GetStatsRequest(),
            )
        except ServiceError:
            return pb.ServiceCaches(service=name)
        return pb.ServiceCaches(
            service=name,
            reachable=True,
            tiers=stats.tiers,
            redis_available=stats.redis_available,
        )

    async def explain(self, chain: Chain, request: pb.AskRequest) -> pb.ExplainCacheResponse:
        """Return what the cache of answers would do with a question, and why."""
        question = await self._questions.of(chain, request)
        if not question.may_be_kept:
            about = pb.AnswerCache()
            about.use.tier, about.use.outcome = "l1", cache_pb.CACHE_OUTCOME_BYPASS
            return pb.ExplainCacheResponse(cache=about, explanation=_why_not_kept(request))
        known = self._freshness.known(question.collection)
        looked = await self._kept.peek(question)
        response = pb.ExplainCacheResponse(
            key=question.key, collection_epoch=known.number if known else 0
        )
        if looked is None:
            response.cache.use.tier = "l1"
            response.cache.use.outcome = cache_pb.CACHE_OUTCOME_MISS
            response.explanation = "No answer to this very request is kept."
            return response
        response.cache.CopyFrom(looked.about)
        response.answer_epoch = looked.epoch.number
        response.document_ids.extend(
            dict.fromkeys(passage.hit.document_id for passage in looked.kept.response.passages)
        )
        response.explanation = _why(question, looked.epoch, known)
        return response

    async def purge(
        self, chain: Chain, request: pb.PurgeCacheRequest, context: Context
    ) -> pb.PurgeCacheResponse:
        """Drop what is kept of the request's subject."""
        subject = request.WhichOneof("subject")
        if subject == "question":
            question = await self._questions.of(chain, request.question)
            return pb.PurgeCacheResponse(dropped=await self._kept.purge(question))
        if subject == "document":
            return await self._invalidate(chain, request.document.collection, request.document.id)
        if subject == "collection":
            return await self._invalidate(chain, request.collection, "")
        dropped = (await self._own.Purge(cache_pb.PurgeRequest(), context)).dropped
        others = await asyncio.gather(
            *(self._purge_of(chain, name) for name in self._services.connections)
        )
        return pb.PurgeCacheResponse(dropped=dropped + sum(others))

    async def _invalidate(
        self, chain: Chain, collection: str, document_id: str
    ) -> pb.PurgeCacheResponse:
        mark = self._freshness.mark()
        done = await chain.unary(
            self._services.peer("retriever"),
            "InvalidateCollection",
            self._services.retriever.InvalidateCollection,
            retriever_pb.InvalidateCollectionRequest(
                collection=collection, document_id=document_id
            ),
        )
        self._freshness.note(collection, done.consistency_token, mark)
        return pb.PurgeCacheResponse(consistency_token=done.consistency_token)

    async def _purge_of(self, chain: Chain, name: str) -> int:
        connection = self._services.connections[name]
        purged = await chain.unary(
            connection.cache_peer, "Purge", connection.caches.Purge, cache_pb.PurgeRequest()
        )
        return purged.dropped


def _why_not_kept(request: pb.AskRequest) -> str:
    if request.cache == pb.CACHE_POLICY_NONE:
        return "The request wants no cache."
    return (
        "The request leaves the answer to chance: its temperature is above 0 and it gives no"
        " seed. Such answers are not kept."
    )


def _why(question: Question, epoch: Epoch, known: Epoch | None) -> str:
    at = f"An answer is kept that was last found to hold at epoch {epoch.number}"
    asked = "the database would be asked whether that concerns its passages."
    if question.need.present:
        return f"{at}. The request wants it as fresh as the database: {asked}"
    if known is None:
        return (
            f"{at}. Whether anything was written since is not certain here; the database"
            " would be asked."
        )
    if known != epoch:
        return f"{at}, and the collection is at epoch {known.number}: {asked}"
    if question.need.epoch is not None and question.need.epoch > epoch:
        return f"{at}, which is older than the request's consistency token: {asked}"
    return f"{at}, and nothing was written since: it would be served."
