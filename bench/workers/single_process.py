"""Asks the pipeline in one process, see `bench/single_process.py`.

python -m bench.workers.single_process DATABASE_URL COLLECTION extractive|model
"""

from __future__ import annotations

import os
import sys
import time

from bench.single_process import SingleProcess
from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Load the models and connect."""
    database, collection, generator = sys.argv[1:]
    threads = int(os.environ["OMP_NUM_THREADS"])
    pipeline = SingleProcess(database, collection, threads, with_model=generator == "model")

    def ask(questions: list[str], max_tokens: int) -> list[float]:
        """Return the seconds of each question, one asked after the other."""
        seconds = []
        for question in questions:
            began = time.perf_counter()
            answer = pipeline.ask(question, max_tokens)
            seconds.append(time.perf_counter() - began)
            assert answer.passages
        return seconds

    return ask


if __name__ == "__main__":
    serve(open_worker)
