"""Puts the generator together from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2_grpc as pb_grpc
from quintet_generator import wire
from quintet_generator.completion_cache import CompletionCache
from quintet_generator.engine import Backend, Engine
from quintet_generator.evidence import EvidenceBackend
from quintet_generator.extractive import ExtractiveBackend
from quintet_generator.openai_backend import OpenAiBackend
from quintet_generator.openvino_backend import OpenVinoBackend
from quintet_generator.prompts import Templates
from quintet_generator.servicer import GeneratorServicer
from quintet_generator.settings import BackendKind, GeneratorSettings
from quintet_generator.transformers_backend import TransformersBackend
from quintet_servicekit import cache_service, status_service
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.breaker_fleet import sharing
from quintet_servicekit.cache import open_remote
from quintet_servicekit.cache_service import register_cache_service
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.server import Application, set_threads
from quintet_servicekit.status_service import register_status_service

SERVICE = pb.DESCRIPTOR.services_by_name["GeneratorService"].full_name


@asynccontextmanager
async def open_application(settings: GeneratorSettings) -> AsyncIterator[Application]:
    """Open the generator; leaving the context waits for the work under way."""
    set_threads(settings.threads)
    async with AsyncExitStack() as stack:

        def executor(name: str, *, queue: int = settings.queue) -> BoundedExecutor:
            made = BoundedExecutor(name, threads=1, queue=queue)
            stack.push_async_callback(made.close)
            return made

        def from_evidence(model: Backend) -> Backend:
            if not settings.evidence_sentences:
                return model
            choosing = executor("evidence", queue=settings.slots + settings.queue)
            return EvidenceBackend(model, choosing, sentences=settings.evidence_sentences)

        # The extractive answer stands on nothing that can fail.
        guarded = [settings.name_of(it) for it in settings.backends if it != "extractive"]
        breakers = {name: Breaker(name, settings.breaker) for name in guarded}

        def backend(kind: BackendKind) -> Backend:
            if kind == "extractive":
                return ExtractiveBackend(
                    executor("extractive"), sentences=settings.extractive_sentences
                )
            if kind == "openvino":
                # As many may come at once as may then run or wait.
                encoding = executor("prompt encoding", queue=settings.slots + settings.queue)
                breaker = breakers[settings.served_name]
                batching = OpenVinoBackend(settings, encoding=encoding, breaker=breaker)
                stack.push_async_callback(batching.close)
                return from_evidence(batching)
            if kind == "openai":
                server = OpenAiBackend(settings)
                stack.push_async_callback(server.close)
                return server
            return from_evidence(
                TransformersBackend(
                    settings,
                    encoding=executor("prompt encoding"),
                    decoding=executor(settings.transformers_name),
                )
            )

        remote = await stack.enter_async_context(open_remote(settings.cache))
        kept = CompletionCache(
            wire.COMPLETIONS, wire.EVENTS, settings.cache, remote, schema=wire.SCHEMA
        )
        backends = [backend(kind) for kind in settings.backends]
        if settings.share_breakers and "openai" in settings.backends:
            # Each replica runs its local models itself.
            remote_models = [breakers[settings.openai_served_name]]
            await stack.enter_async_context(sharing(remote, "generator", remote_models))
        # After the backends, so that what is computed ends before them.
        stack.push_async_callback(kept.aclose)
        engine = Engine(backends, Templates.with_folder(settings.templates_dir), kept, breakers)
        servicer = GeneratorServicer(engine, max_passages_chars=settings.max_passages_chars)

        def register(server: grpc.aio.Server) -> None:
            pb_grpc.add_GeneratorServiceServicer_to_server(servicer, server)
            register_cache_service(server, [kept], remote)
            register_status_service(server, breakers.values(), remote)

        async def ready() -> None:
            """It depends on nothing but its models."""

        yield Application(
            service=SERVICE,
            register=register,
            warm_up=lambda: engine.load(load_all=settings.load_all),
            check=ready,
            more_services=(cache_service.SERVICE, status_service.SERVICE),
        )
