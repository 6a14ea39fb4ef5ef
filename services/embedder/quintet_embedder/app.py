"""Puts the embedder together."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc

from quintet.embedder.v1.embedder_service_pb2_grpc import add_EmbedderServiceServicer_to_server
from quintet_embedder.checkpoint import read_checkpoint, revision_of
from quintet_embedder.engine import Engine, ModelEngine, Scorer
from quintet_embedder.lanes import plan_lanes
from quintet_embedder.pool import Pool
from quintet_embedder.scheduler import Scheduler
from quintet_embedder.servicer import EmbedderServicer
from quintet_embedder.settings import Settings, model_folder, one_model_each
from quintet_embedder.tokenization import ModelTokenizer
from quintet_embedder.vector_cache import VectorCache
from quintet_servicekit import cache_service, status_service
from quintet_servicekit.cache import open_remote
from quintet_servicekit.cache_service import register_cache_service
from quintet_servicekit.server import Application
from quintet_servicekit.status_service import register_status_service

SERVICE = "quintet.embedder.v1.EmbedderService"


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the embedder; its threads end when the context does."""
    async with open_remote(settings.cache) as remote:
        kept = VectorCache(settings.cache, remote, passage_share=settings.passage_memory_share)
        engines = [_engine(each) for each in one_model_each(settings)]
        engine = Engine(engines, kept, _scorer(settings.reranker_path))
        servicer = EmbedderServicer(
            engine, max_batch=settings.max_batch, max_text_chars=settings.max_text_chars
        )

        def register(server: grpc.aio.Server) -> None:
            add_EmbedderServiceServicer_to_server(servicer, server)
            register_cache_service(server, kept.tiers, remote)
            register_status_service(server, [], remote)

        try:
            yield Application(
                service=SERVICE,
                register=register,
                warm_up=engine.warm_up,
                check=engine.check,
                more_services=(cache_service.SERVICE, status_service.SERVICE),
            )
        finally:
            await engine.close()


def _engine(settings: Settings) -> ModelEngine:
    checkpoint = read_checkpoint(model_folder(settings))
    scheduler = Scheduler(
        batch_tokens=settings.batch_tokens,
        max_texts=settings.queue_texts,
        passages_beside_queries=settings.passages_beside_queries or math.inf,
    )
    return ModelEngine(
        name=settings.model,
        revision=partial(revision_of, checkpoint.folder),
        max_tokens=checkpoint.max_tokens,
        normalized=checkpoint.normalized,
        prompts=checkpoint.prompts,
        tokenizer=ModelTokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens),
        pool=Pool(settings.model, partial(plan_lanes, checkpoint, settings), scheduler),
    )


def _scorer(folder: Path | None) -> Scorer | None:
    if folder is None:
        return None
    # Imported here, for it brings torch.
    from quintet_embedder.cross_encoder import CrossEncoderScorer

    return CrossEncoderScorer(folder)
