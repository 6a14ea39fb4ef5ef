"""Puts the gateway together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import kept_answer_pb2 as kept_pb
from quintet.gateway.v1.explain_service_pb2_grpc import add_ExplainServiceServicer_to_server
from quintet.gateway.v1.feedback_service_pb2_grpc import add_FeedbackServiceServicer_to_server
from quintet.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server
from quintet.gateway.v1.key_service_pb2_grpc import add_KeyServiceServicer_to_server
from quintet.gateway.v1.link_service_pb2_grpc import add_LinkServiceServicer_to_server
from quintet.gateway.v1.usage_service_pb2_grpc import add_UsageServiceServicer_to_server
from quintet_gateway import yaml_file
from quintet_gateway.access.opening import open_access
from quintet_gateway.access.servicer import SERVICE as KEY_SERVICE
from quintet_gateway.access.servicer import KeyServicer
from quintet_gateway.access.standing import Standing
from quintet_gateway.admission.admission import Admission
from quintet_gateway.admission.limiter import open_limiter
from quintet_gateway.admission.policies import Policies, open_policies
from quintet_gateway.answering import Answerer
from quintet_gateway.ask import Asker
from quintet_gateway.billing.prices import PriceTable
from quintet_gateway.budget import Plan
from quintet_gateway.cache_admin import CacheAdmin
from quintet_gateway.catalog import Catalog
from quintet_gateway.chunks import ChunkPlan
from quintet_gateway.clients import Readiness, Services, open_services
from quintet_gateway.database import Database, open_database
from quintet_gateway.expansion import LinkExpander
from quintet_gateway.feedback.opening import open_ratings
from quintet_gateway.feedback.servicer import SERVICE as FEEDBACK_SERVICE
from quintet_gateway.feedback.servicer import FeedbackServicer
from quintet_gateway.freshness import Freshness
from quintet_gateway.ingest import Ingester
from quintet_gateway.ingest_stream import StreamLimits
from quintet_gateway.kept import SCHEMA, KeptAnswers
from quintet_gateway.links.servicer import SERVICE as LINK_SERVICE
from quintet_gateway.links.servicer import LinkServicer
from quintet_gateway.near import NearQuestions
from quintet_gateway.overlap import Overlap
from quintet_gateway.question import AskLimits, Questions
from quintet_gateway.reader import Reader
from quintet_gateway.records.opening import Records, open_records
from quintet_gateway.records.recorder import Recorder
from quintet_gateway.records.servicer import SERVICE as EXPLAIN_SERVICE
from quintet_gateway.records.servicer import ExplainServicer
from quintet_gateway.reembedding import Reembedder
from quintet_gateway.refiner import Refiner
from quintet_gateway.refining import RefiningLimits
from quintet_gateway.searching import Searcher
from quintet_gateway.semantic_index import SemanticIndex
from quintet_gateway.servicer import GatewayServicer
from quintet_gateway.settings import Settings
from quintet_gateway.status import StatusTeller
from quintet_gateway.usage.ledger import Ledger
from quintet_gateway.usage.opening import open_usage
from quintet_gateway.usage.servicer import SERVICE as USAGE_SERVICE
from quintet_gateway.usage.servicer import UsageServicer
from quintet_gateway.usage.spending import CountedSpending
from quintet_servicekit.breaker_fleet import sharing
from quintet_servicekit.cache import Cache, Codec, Flights, Remote, open_remote
from quintet_servicekit.cache_service import SERVICE as CACHE_SERVICE
from quintet_servicekit.cache_service import CacheServicer, register_cache_service
from quintet_servicekit.epochs import EpochNews, EpochWatch, open_watch
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.server import Application
from quintet_servicekit.status_service import SERVICE as STATUS_SERVICE
from quintet_servicekit.status_service import register_status_service

SERVICE = "quintet.gateway.v1.GatewayService"
UNLIMITED = frozenset({"GetStatus", "GetCacheStats", "ExplainCache", "PurgeCache", "Ingest"})
"""What operators ask, and a stream that bounds its documents itself."""

LIMITED = (
    SERVICE,
    LINK_SERVICE,
    EXPLAIN_SERVICE,
    USAGE_SERVICE,
    FEEDBACK_SERVICE,
    CACHE_SERVICE,
)
"""Services whose calls are within limits: all but what tells how things are, and the keys, by
which who floods everybody's limit is shut out."""

FREE = frozenset({"GetStatus", "GetCacheStats"})
"""What costs no request: who has none left may still see how things are."""

REFINING_THREADS = 2
REFINING_QUEUE = 62
"""Refinements under way and waiting: each takes milliseconds."""


@dataclass(frozen=True)
class _Caches:
    answers: Cache[kept_pb.KeptAnswer]
    flights: Flights[pb.AskStreamResponse]
    near: SemanticIndex
    watch: EpochWatch
    remote: Remote | None


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the gateway; it closes its connections when the context ends.

    Raises `FileError` for prices, or a policy, that cannot be used.
    """
    prices = yaml_file.read(settings.prices_file, PriceTable)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings))
        remote = await stack.enter_async_context(open_remote(settings.cache))
        database = await stack.enter_async_context(open_database(settings))
        news = EpochNews(remote) if remote else None
        access = await stack.enter_async_context(open_access(settings, database, news))
        usage = await stack.enter_async_context(open_usage(settings.usage, database))
        spending = CountedSpending(usage.store, prices.currency) if usage else None
        limits = settings.limits
        policies = await stack.enter_async_context(open_policies(limits.policy, limits.policy_file))
        admission = Admission(
            await stack.enter_async_context(open_limiter(limits, remote, spending)),
            policies,
            Ledger(usage.writer if usage else None),
            services=LIMITED,
            free=FREE,
        )
        breakers = [it.breaker for it in services.connections.values()]
        if database is not None:
            breakers.append(database.breaker)
        if settings.share_breakers:
            await stack.enter_async_context(sharing(remote, "gateway", breakers))
        answers = Cache(
            "l1",
            Codec(kept_pb.KeptAnswer.SerializeToString, kept_pb.KeptAnswer.FromString),
            settings.cache,
            remote,
            schema=SCHEMA,
        )
        stack.push_async_callback(answers.aclose)
        # Replicas share what the generator makes, which is what takes time.
        flights = Flights(
            "l1",
            Codec(pb.AskStreamResponse.SerializeToString, pb.AskStreamResponse.FromString),
            settings.cache,
        )
        stack.push_async_callback(flights.aclose)
        near = SemanticIndex(
            max_questions=settings.semantic_questions,
            max_scope_questions=settings.semantic_questions,
            threshold=settings.semantic_threshold,
        )

        def forget(keys: Sequence[str]) -> None:
            answers.discard(keys)
            for key in keys:
                near.discard(key.encode())

        ring = access.ring
        watch = await stack.enter_async_context(
            open_watch(remote, forget, on_key=ring.forget, on_gap=ring.doubt)
        )
        executor = BoundedExecutor("refining", threads=REFINING_THREADS, queue=REFINING_QUEUE)
        stack.push_async_callback(executor.close)
        caches = _Caches(answers, flights, near, watch, remote)
        records = await stack.enter_async_context(open_records(settings, database))
        servicer = _servicer(
            settings,
            services,
            caches,
            executor,
            database,
            prices,
            admission,
            policies,
            records,
        )
        ratings = await stack.enter_async_context(
            open_ratings(settings.feedback, database, records)
        )
        explaining = ExplainServicer(records.explainer if records else None)

        usage_servicer = UsageServicer(usage.store if usage else None, policies, spending)
        links = LinkServicer(services, Freshness(watch), seconds=settings.ask_seconds)

        readiness = Readiness(services, start_seconds=settings.start_seconds)

        async def warm_up() -> None:
            for connection in services.connections.values():
                connection.is_ready()  # begins to connect

        async def check() -> None:
            readiness.check()

        def register(server: grpc.aio.Server) -> None:
            add_GatewayServiceServicer_to_server(servicer, server)
            add_LinkServiceServicer_to_server(links, server)
            add_ExplainServiceServicer_to_server(explaining, server)
            add_UsageServiceServicer_to_server(usage_servicer, server)
            add_FeedbackServiceServicer_to_server(FeedbackServicer(ratings), server)
            add_KeyServiceServicer_to_server(KeyServicer(access.keys), server)
            register_cache_service(server, [answers], remote)
            register_status_service(server, breakers, remote)

        yield Application(
            service=SERVICE,
            register=register,
            warm_up=warm_up,
            check=check,
            more_services=(
                LINK_SERVICE,
                EXPLAIN_SERVICE,
                USAGE_SERVICE,
                FEEDBACK_SERVICE,
                KEY_SERVICE,
                CACHE_SERVICE,
                STATUS_SERVICE,
            ),
            unlimited_methods=UNLIMITED,
            authenticator=access.gatekeeper,
            guard=Standing(
                access.gatekeeper,
                admission,
                seconds=settings.access.fresh_seconds,
                changes=lambda: ring.changes,
            ),
        )


def _servicer(
    settings: Settings,
    services: Services,
    caches: _Caches,
    executor: BoundedExecutor,
    database: Database | None,
    prices: PriceTable,
    admission: Admission,
    policies: Policies,
    records: Records | None,
) -> GatewayServicer:
    catalog = Catalog(
        services,
        max_collections=settings.max_remembered_collections,
        models_seconds=settings.models_seconds,
    )
    freshness = Freshness(caches.watch)
    searcher = Searcher(services, catalog, freshness)
    refining = RefiningLimits(
        refine_candidates=settings.refine_candidates, merged_tokens=settings.merged_tokens
    )
    refiner = Refiner(services, refining, executor)
    expander = LinkExpander(services)
    questions = Questions(
        catalog,
        freshness,
        AskLimits(
            default_passages=settings.default_passages,
            context_tokens=settings.context_tokens,
            prompt_overhead_tokens=settings.prompt_overhead_tokens,
            passage_overhead_tokens=settings.passage_overhead_tokens,
            default_answer_tokens=settings.default_answer_tokens,
            min_citation_support=settings.min_citation_support,
            duplicate_similarity=settings.duplicate_similarity,
            remove_loads=settings.remove_loads,
            withhold_instructions=settings.withhold_instructions,
            abstain_below=settings.abstain_below,
            max_staleness_seconds=settings.max_staleness_seconds,
            refining=refining,
        ),
        policies,
    )
    news = EpochNews(caches.remote) if caches.remote else None
    kept = KeptAnswers(caches.answers, searcher, freshness, news)
    near = NearQuestions(caches.near, kept, by_default=settings.semantic)
    ingester = Ingester(
        services,
        catalog,
        freshness,
        ChunkPlan(
            chunk_tokens=settings.chunk_tokens,
            chunk_overlap_tokens=settings.chunk_overlap_tokens,
            heading_chars=settings.heading_chars,
            embed_batch=settings.embed_batch,
            embed_calls=settings.embed_calls,
        ),
        admission,
    )
    asker = Asker(
        catalog,
        questions,
        searcher,
        refiner,
        expander,
        Answerer(services, Reader(settings.reading_bytes)),
        freshness,
        kept,
        near,
        caches.flights,
        admission,
    )
    return GatewayServicer(
        services,
        catalog,
        freshness,
        searcher,
        refiner,
        expander,
        Recorder(asker, records.writer if records else None),
        ingester,
        Reembedder(
            services,
            catalog,
            freshness,
            Overlap(services, searcher),
            ingester,
            in_flight=settings.documents_in_flight,
            max_documents=settings.max_stream_documents,
        ),
        CacheAdmin(
            services,
            CacheServicer([caches.answers], caches.remote),
            questions,
            kept,
            freshness,
        ),
        StatusTeller(
            services,
            database,
            [caches.remote.breaker] if caches.remote else [],
            is_open=settings.access.mode == "open",
        ),
        admission=admission,
        prices=prices,
        ask_plan=_plan(settings, "Embed", "Search", "Rerank", "Count", "GenerateStream"),
        search_plan=_plan(settings, "Embed", "Search", "Rerank"),
        stream_limits=StreamLimits(
            documents_in_flight=settings.documents_in_flight,
            chars_in_flight=settings.chars_in_flight,
            max_stream_documents=settings.max_stream_documents,
            max_document_chars=settings.max_document_chars,
            document_seconds=settings.document_seconds,
        ),
        ask_seconds=settings.ask_seconds,
        max_question_chars=settings.max_question_chars,
    )


def _plan(settings: Settings, *methods: str) -> Plan:
    floors = {
        "Embed": settings.embed_floor_seconds,
        "Search": settings.search_floor_seconds,
        "Rerank": settings.rerank_floor_seconds,
        "Count": settings.count_floor_seconds,
        "GenerateStream": settings.first_text_floor_seconds,
    }
    return Plan(
        {method: floors[method] for method in methods},
        reply_seconds=settings.reply_seconds,
        substitute_after=settings.substitute_after_seconds,
        optional=["Rerank"],
    )
