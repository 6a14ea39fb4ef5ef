"""The embedder's engine in one process: no service, no queue, no wire.

    python -m bench.workers.openvino_embedder MODEL_XML TOKENIZER_JSON PRECISION

Tokenizes a batch and computes it, with the next one already under way. Two plans: "streams" has a
copy of the model a core, each on one thread; "whole" computes every batch on all cores.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import openvino as ov
from tokenizers import Tokenizer

from bench.workers.serving import Answer, serve

BATCH = 32


def open_worker() -> Answer:
    """Load the model twice."""
    model, tokenizer_file, precision = sys.argv[1:]
    threads = int(os.environ["OMP_NUM_THREADS"])
    tokenizer = Tokenizer.from_file(tokenizer_file)
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    core = ov.Core()
    queues = {}
    for plan, streams in (("streams", threads), ("whole", 1)):
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": str(streams),
            },
        )
        queues[plan] = ov.AsyncInferQueue(compiled, 2 * streams)

    vectors: dict[int, np.ndarray] = {}
    for queue in queues.values():
        queue.set_callback(
            lambda request, batch: vectors.__setitem__(
                batch, request.get_output_tensor(0).data.copy()
            )
        )

    def embed(texts: list[str], plan: str, repeat: int = 1, pause: float = 0) -> list[float]:
        """Return the seconds of each of `repeat` turns, with `pause` seconds before each."""
        seconds = []
        for _ in range(repeat):
            time.sleep(pause)
            began = time.perf_counter()
            for start in range(0, len(texts), BATCH):
                encodings = tokenizer.encode_batch_fast(texts[start : start + BATCH])
                ids = np.array([it.ids for it in encodings], dtype=np.int64)
                mask = np.array([it.attention_mask for it in encodings], dtype=np.int64)
                queues[plan].start_async([ids, mask], start)
            queues[plan].wait_all()
            np.concatenate([vectors[start] for start in sorted(vectors)])
            vectors.clear()
            seconds.append(time.perf_counter() - began)
        return seconds

    return embed


if __name__ == "__main__":
    serve(open_worker)
