"""Puts the embedder together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from quintet.embedder.v1.embedder_service_pb2_grpc import add_EmbedderServiceServicer_to_server
from quintet_embedder.checkpoint import read_checkpoint, revision_of
from quintet_embedder.engine import Engine
from quintet_embedder.lanes import plan_lanes
from quintet_embedder.scheduler import Scheduler
from quintet_embedder.servicer import EmbedderServicer
from quintet_embedder.settings import Settings, model_folder
from quintet_embedder.tokenization import ModelTokenizer
from quintet_servicekit.server import Application

SERVICE = "quintet.embedder.v1.EmbedderService"


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the embedder; its threads end when the context does."""
    checkpoint = read_checkpoint(model_folder(settings))
    engine = Engine(
        name=settings.model,
        plan=partial(plan_lanes, checkpoint, settings),
        tokenizer=ModelTokenizer(checkpoint.tokenizer_file),
        revision=partial(revision_of, checkpoint.folder),
        max_tokens=checkpoint.max_tokens,
        normalized=checkpoint.normalized,
        prompts=checkpoint.prompts,
        scheduler=Scheduler(batch_tokens=settings.batch_tokens, max_texts=settings.queue_texts),
    )
    servicer = EmbedderServicer(
        engine, max_batch=settings.max_batch, max_text_chars=settings.max_text_chars
    )
    try:
        yield Application(
            service=SERVICE,
            register=lambda server: add_EmbedderServiceServicer_to_server(servicer, server),
            warm_up=engine.warm_up,
            check=engine.check,
        )
    finally:
        await engine.close()
