"""Puts the gateway together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quintet.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server
from quintet_gateway.ask import Asker, AskLimits
from quintet_gateway.catalog import Catalog
from quintet_gateway.clients import Services, open_services
from quintet_gateway.ingest import ChunkPlan, Ingester
from quintet_gateway.ingest_stream import StreamLimits
from quintet_gateway.servicer import GatewayServicer
from quintet_gateway.settings import Settings
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.server import Application

SERVICE = "quintet.gateway.v1.GatewayService"


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the gateway; it closes its connections when the context ends."""
    async with open_services(settings) as services:
        servicer = _servicer(services, settings)

        async def warm_up() -> None:
            for connection in services.connections.values():
                connection.is_ready()  # begins to connect

        async def check() -> None:
            away = [name for name, it in services.connections.items() if not it.is_ready()]
            if away:
                raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, f"not ready: {', '.join(away)}")

        yield Application(
            service=SERVICE,
            register=lambda server: add_GatewayServiceServicer_to_server(servicer, server),
            warm_up=warm_up,
            check=check,
        )


def _servicer(services: Services, settings: Settings) -> GatewayServicer:
    catalog = Catalog(
        services,
        max_collections=settings.max_remembered_collections,
        models_seconds=settings.models_seconds,
    )
    asker = Asker(
        services,
        catalog,
        AskLimits(
            default_passages=settings.default_passages,
            context_tokens=settings.context_tokens,
            prompt_overhead_tokens=settings.prompt_overhead_tokens,
            default_answer_tokens=settings.default_answer_tokens,
            min_citation_support=settings.min_citation_support,
        ),
    )
    ingester = Ingester(
        services,
        catalog,
        ChunkPlan(
            chunk_tokens=settings.chunk_tokens,
            chunk_overlap_tokens=settings.chunk_overlap_tokens,
            embed_batch=settings.embed_batch,
            embed_calls=settings.embed_calls,
        ),
    )
    return GatewayServicer(
        services,
        catalog,
        asker,
        ingester,
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
