"""sentence-transformers as its documentation shows it, in float32.

python -m bench.workers.sentence_transformers_embedder MODEL_FOLDER
"""

from __future__ import annotations

import os
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Load the model."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)

    def embed(texts: list[str]) -> float:
        began = time.perf_counter()
        model.encode(texts, batch_size=32, normalize_embeddings=True)
        return time.perf_counter() - began

    return embed


if __name__ == "__main__":
    serve(open_worker)
