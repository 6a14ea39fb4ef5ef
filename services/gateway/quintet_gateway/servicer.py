"""The gateway's RPCs: validate, call, build the response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway import validate
from quintet_gateway.admission.admission import Admission
from quintet_gateway.billing.bounds import most
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import PriceTable
from quintet_gateway.billing.trailers import billed
from quintet_gateway.budget import Plan
from quintet_gateway.cache_admin import CacheAdmin
from quintet_gateway.catalog import Catalog
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.expansion import LinkExpander
from quintet_gateway.freshness import Freshness
from quintet_gateway.ingest import Ingester, new_request_id
from quintet_gateway.ingest_stream import IngestStream, StreamLimits
from quintet_gateway.question import RERANKED_TOKENS
from quintet_gateway.records.recorder import Recorder
from quintet_gateway.reembedding import Reembedder
from quintet_gateway.refiner import Refiner
from quintet_gateway.refining import MAX_CANDIDATES, Hits, may_find_more
from quintet_gateway.searching import Found, Query, Searcher, by_words_alone
from quintet_gateway.status import StatusTeller
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.priority import Priority, priority_now
from quintet_servicekit.token_estimate import estimate_tokens

DEFAULT_HITS = 10
"""Most hits of a search that gives no number."""

Context = grpc.aio.ServicerContext[Any, Any]


class GatewayServicer(GatewayServiceServicer):
    """See the contract for each method.

    `ask_seconds` is the deadline of a unary call whose caller gave none; the plans share
    out a question's and a search's; by the `prices` bills
    are made.
    """

    def __init__(
        self,
        services: Services,
        catalog: Catalog,
        freshness: Freshness,
        searcher: Searcher,
        refiner: Refiner,
        expander: LinkExpander,
        answers: Recorder,
        ingester: Ingester,
        reembedder: Reembedder,
        caches: CacheAdmin,
        teller: StatusTeller,
        *,
        admission: Admission,
        prices: PriceTable,
        ask_plan: Plan,
        search_plan: Plan,
        stream_limits: StreamLimits,
        ask_seconds: float,
        max_question_chars: int,
    ) -> None:
        self._services = services
        self._catalog = catalog
        self._freshness = freshness
        self._searcher = searcher
        self._refiner = refiner
        self._expander = expander
        self._answers = answers
        self._ingester = ingester
        self._reembedder = reembedder
        self._caches = caches
        self._teller = teller
        self._admission = admission
        self._prices = prices
        self._ask_plan = ask_plan
        self._search_plan = search_plan
        self._stream_limits = stream_limits
        self._ask_seconds = ask_seconds
        self._max_question_chars = max_question_chars

    def _chain(
        self,
        context: Context,
        plan: Plan | None = None,
        *,
        fail_if_degraded: bool = False,
    ) -> Chain:
        deadline = Deadline.of_call(context, self._ask_seconds)
        # What is planned is what is paid for; the rest is managing.
        meter = Meter(self._prices) if plan else None
        return Chain(deadline, plan, meter=meter, fail_if_degraded=fail_if_degraded)

    def _asked(self, request: pb.AskRequest, context: Context) -> Chain:
        validate.question(request, max_chars=self._max_question_chars)
        return self._chain(
            context,
            self._ask_plan,
            fail_if_degraded=request.fail_if_degraded,
        )

    async def Ask(self, request: pb.AskRequest, context: Context) -> pb.AskResponse:
        chain = self._asked(request, context)
        with billed(chain.meter, context, self._admission):
            return await self._answers.whole(chain, request)

    async def AskStream(
        self, request: pb.AskRequest, context: Context
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        chain = self._asked(request, context)
        with billed(chain.meter, context, self._admission):
            async with aclosing(self._answers.stream(chain, request)) as events:
                async for event in events:
                    yield event

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        validate.query(request, max_chars=self._max_question_chars)
        chain = self._chain(
            context,
            self._search_plan,
            fail_if_degraded=request.fail_if_degraded,
        )
        tokens = estimate_tokens(request.query)
        reranked = self._refiner.candidates(request.refinement, request.k or DEFAULT_HITS)
        limit = most(
            self._prices,
            chain.meter.day,
            seconds=chain.left(),
            embedded=tokens
            + (reranked * (tokens + RERANKED_TOKENS) if request.refinement.rerank else 0),
        )
        with billed(chain.meter, context, self._admission):
            async with self._admission.reserved(
                tokens, chain.meter, most=limit, or_cheaply=True
            ) as refused:
                if refused is not None:
                    request = by_words_alone(chain, request, refused)
                return await self._searched(chain, request)

    async def _searched(self, chain: Chain, request: pb.SearchRequest) -> pb.SearchResponse:
        need = self._freshness.need(request.collection, request.consistency)
        wanted = request.k or DEFAULT_HITS
        query = Query(
            collection=request.collection,
            text=request.query,
            k=self._refiner.candidates(request.refinement, wanted),
            mode=request.mode,
            filter=request.filter if request.HasField("filter") else None,
            consistency=self._freshness.demand(request.collection, need),
        )
        found, hits = await self._found(chain, request, query, wanted)
        short = len(hits) < wanted and not found.exhausted
        if short and may_find_more(request.refinement, query.k):
            query = replace(query, k=MAX_CANDIDATES)
            found, hits = await self._found(chain, request, query, wanted)
        linked = await self._expander.linked(
            chain,
            links_pb.RelatedPassagesRequest(
                collection=request.collection,
                text=request.query,
                filter=request.filter if request.HasField("filter") else None,
                limit=request.linked_passages,
            ),
            found.vector,
            hits,
        )
        return pb.SearchResponse(
            hits=hits,
            linked=linked,
            mode=found.mode,
            trail=chain.trail(),
            consistency_token=found.token,
            exhausted=found.exhausted and len(hits) < wanted,
            compared_all=found.compared_all,
            degradations=chain.degradations.messages,
            bill=chain.meter.bill(),
        )

    async def _found(
        self, chain: Chain, request: pb.SearchRequest, query: Query, wanted: int
    ) -> tuple[Found, Hits]:
        found = await self._searcher.find(chain, query)
        refinement = request.refinement
        return found, await self._refiner.refined(
            chain, request.query, found.hits, refinement, wanted
        )

    async def Ingest(
        self, request_iterator: AsyncIterator[pb.IngestRequest], context: Context
    ) -> AsyncGenerator[pb.IngestResponse]:
        # Documents can wait, whatever the caller says; a person who asks cannot.
        priority_now.set(Priority.BULK)
        deadline = Deadline.of_call(context, default=float("inf"))
        meter = Meter(self._prices, calls=0)  # each of its documents is one
        stream = IngestStream(self._ingester, self._stream_limits, deadline, meter, self._admission)
        with billed(meter, context, self._admission):
            async with aclosing(stream.acknowledgements(request_iterator)) as responses:
                async for response in responses:
                    yield response

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        found = await self._chain(context).unary(
            self._services.peer("retriever"),
            "GetDocument",
            self._services.retriever.GetDocument,
            retriever_pb.GetDocumentRequest(
                collection=request.collection,
                id=request.id,
                include_content=request.include_content,
            ),
        )
        return pb.GetDocumentResponse(document=found.document)

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        found = await self._chain(context).unary(
            self._services.peer("retriever"),
            "ListDocuments",
            self._services.retriever.ListDocuments,
            retriever_pb.ListDocumentsRequest(
                collection=request.collection,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter if request.HasField("filter") else None,
            ),
        )
        return pb.ListDocumentsResponse(
            documents=found.documents, next_page_token=found.next_page_token
        )

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        mark = self._freshness.mark()
        deleted = await self._chain(context).unary(
            self._services.peer("retriever"),
            "DeleteDocument",
            self._services.retriever.DeleteDocument,
            retriever_pb.DeleteDocumentRequest(
                collection=request.collection,
                id=request.id,
                request_id=request.request_id or new_request_id(),
            ),
        )
        self._freshness.wrote(
            request.collection, deleted.consistency_token, mark, request.request_id
        )
        return pb.DeleteDocumentResponse(
            deleted_chunks=deleted.deleted_chunks, consistency_token=deleted.consistency_token
        )

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        validate.collection(request)
        chain = self._chain(context)
        model = await self._catalog.embedder(chain, request.embedding_model)
        self._catalog.forget(request.name)
        mark = self._freshness.mark()
        created = await chain.unary(
            self._services.peer("retriever"),
            "CreateCollection",
            self._services.retriever.CreateCollection,
            retriever_pb.CreateCollectionRequest(
                name=request.name,
                embedding_model=model.name,
                embedding_revision=model.revision,
                dimension=model.dimension,
                description=request.description,
                request_id=request.request_id or new_request_id(),
                language=request.language,
            ),
        )
        self._freshness.wrote(request.name, created.consistency_token, mark, request.request_id)
        return pb.CreateCollectionResponse(
            collection=created.collection, consistency_token=created.consistency_token
        )

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: Context
    ) -> pb.GetCollectionResponse:
        found = await self._chain(context).unary(
            self._services.peer("retriever"),
            "GetCollection",
            self._services.retriever.GetCollection,
            retriever_pb.GetCollectionRequest(name=request.name),
        )
        return pb.GetCollectionResponse(collection=found.collection)

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: Context
    ) -> pb.ListCollectionsResponse:
        found = await self._chain(context).unary(
            self._services.peer("retriever"),
            "ListCollections",
            self._services.retriever.ListCollections,
            retriever_pb.ListCollectionsRequest(
                page_size=request.page_size, page_token=request.page_token
            ),
        )
        return pb.ListCollectionsResponse(
            collections=found.collections, next_page_token=found.next_page_token
        )

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        self._catalog.forget(request.name)
        mark = self._freshness.mark()
        deleted = await self._chain(context).unary(
            self._services.peer("retriever"),
            "DeleteCollection",
            self._services.retriever.DeleteCollection,
            retriever_pb.DeleteCollectionRequest(
                name=request.name, request_id=request.request_id or new_request_id()
            ),
        )
        self._freshness.wrote(request.name, deleted.consistency_token, mark, request.request_id)
        return pb.DeleteCollectionResponse(
            deleted_documents=deleted.deleted_documents,
            consistency_token=deleted.consistency_token,
        )

    async def ReembedCollection(
        self, request: pb.ReembedCollectionRequest, context: Context
    ) -> AsyncGenerator[pb.ReembedCollectionResponse]:
        validate.reembedding(request)
        priority_now.set(Priority.BULK)
        deadline = Deadline.of_call(context, default=float("inf"))
        seconds = self._stream_limits.document_seconds
        meter = Meter(self._prices)

        def new_chain() -> Chain:
            return Chain(deadline.or_after(seconds), meter=meter.part(), fail_if_degraded=True)

        with billed(meter, context, self._admission):
            async with aclosing(self._reembedder.events(request, new_chain)) as events:
                async for event in events:
                    meter.collection = request.collection
                    self._admission.settle(meter)
                    yield event

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        return await self._teller.status(self._chain(context))

    async def GetCacheStats(
        self, request: pb.GetCacheStatsRequest, context: Context
    ) -> pb.GetCacheStatsResponse:
        return await self._caches.stats(self._chain(context), context)

    async def ExplainCache(
        self, request: pb.ExplainCacheRequest, context: Context
    ) -> pb.ExplainCacheResponse:
        validate.question(request.request, max_chars=self._max_question_chars)
        return await self._caches.explain(self._chain(context), request.request)

    async def PurgeCache(
        self, request: pb.PurgeCacheRequest, context: Context
    ) -> pb.PurgeCacheResponse:
        validate.purge(request, max_chars=self._max_question_chars)
        return await self._caches.purge(self._chain(context), request, context)
