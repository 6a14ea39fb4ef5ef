"""infinity-emb's batching engine, called from its own process: no HTTP to pay for.

    python -m bench.workers.infinity_embedder MODEL_FOLDER

Runs with the Python of the peer's environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs  # type: ignore[import-not-found]

from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Start the engine on an event loop in a thread."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def started() -> AsyncEmbeddingEngine:
        engine = AsyncEmbeddingEngine.from_args(
            EngineArgs(
                model_name_or_path=sys.argv[1],
                engine="torch",
                device="cpu",
                dtype="bfloat16",
                batch_size=32,
                bettertransformer=False,
                lengths_via_tokenize=False,
                model_warmup=False,
            )
        )
        await engine.astart()
        return engine

    engine = asyncio.run_coroutine_threadsafe(started(), loop).result()

    async def one_by_one(texts: list[str], concurrency: int) -> float:
        turn = asyncio.Semaphore(concurrency)

        async def one(text: str) -> None:
            async with turn:
                await engine.embed(sentences=[text])

        began = time.perf_counter()
        await asyncio.gather(*map(one, texts))
        return time.perf_counter() - began

    def embed(texts: list[str], concurrency: int) -> float:
        return asyncio.run_coroutine_threadsafe(one_by_one(texts, concurrency), loop).result()

    return embed


if __name__ == "__main__":
    serve(open_worker)
