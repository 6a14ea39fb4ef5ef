"""Puts the embedder together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from quintet.embedder.v1.embedder_service_pb2_grpc import add_EmbedderServiceServicer_to_server
from quintet_embedder.checkpoint import read_checkpoint, revision_of
from quintet_embedder.engine import Engine, Scorer
from quintet_embedder.lanes import plan_lanes
from quintet_embedder.pool import Pool
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
    scheduler = Scheduler(batch_tokens=settings.batch_tokens, max_texts=settings.queue_texts)
    engine = Engine(
        name=settings.model,
        revision=partial(revision_of, checkpoint.folder),
        max_tokens=checkpoint.max_tokens,
        normalized=checkpoint.normalized,
        prompts=checkpoint.prompts,
        tokenizer=ModelTokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens),
        pool=Pool(settings.model, partial(plan_lanes, checkpoint, settings), scheduler),
        scorer=_scorer(settings.reranker_path),
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


def _scorer(folder: Path | None) -> Scorer | None:
    if folder is None:
        return None
    # Imported here, for it brings torch.
    from quintet_embedder.cross_encoder import CrossEncoderScorer

    return CrossEncoderScorer(folder)
