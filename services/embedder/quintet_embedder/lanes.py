"""Chooses the engine, and how many copies of the model run on it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

from quintet_embedder.checkpoint import Checkpoint
from quintet_embedder.models import Purpose
from quintet_embedder.pool import Lane
from quintet_embedder.settings import Settings, compute_threads, model_environment
from quintet_servicekit.server import set_threads

PREPARE_SECONDS = 600
"""Longest that a conversion may take; the embedded model's takes ten."""


def plan_lanes(checkpoint: Checkpoint, settings: Settings) -> Sequence[Lane]:
    """Return the lanes that the settings ask for, unopened; blocking.

    On OpenVINO each core computes passages in a lane of its own, which is faster than
    all cores together on one batch, and queries, with what is reranked for one, have a
    lane of higher priority. On torch one lane does everything.
    """
    threads = compute_threads(settings)
    set_threads(threads)
    engine = settings.backend
    if engine == "auto":
        on_cpu = settings.device == "cpu"
        has_openvino = importlib.util.find_spec("openvino") is not None
        engine = "openvino" if on_cpu and has_openvino else "torch"
    if engine == "torch":
        from quintet_embedder.torch_backend import TorchLane

        return [
            TorchLane(
                checkpoint.folder,
                device=settings.device,
                dtype=settings.dtype,
                threads=threads,
                padding_id=checkpoint.padding_id,
            )
        ]
    return _openvino_lanes(checkpoint, settings, threads)


def _openvino_lanes(checkpoint: Checkpoint, settings: Settings, threads: int) -> Sequence[Lane]:
    from quintet_embedder.openvino_backend import OpenVinoLane, is_prepared
    from quintet_embedder.prepare import converted_folder

    folder = converted_folder(settings)
    if not is_prepared(folder):
        # In a process of its own: torch's memory goes with it.
        subprocess.run(
            [sys.executable, "-P", "-m", "quintet_embedder.prepare"],
            check=True,
            timeout=PREPARE_SECONDS,
            stdout=sys.stderr,
            env={**os.environ, **model_environment(settings)},
        )

    def lane(purposes: Sequence[Purpose], lane_threads: int, niceness: int) -> Lane:
        return OpenVinoLane(
            folder,
            purposes=purposes,
            dtype=settings.dtype,
            threads=lane_threads,
            niceness=niceness,
            padding_id=checkpoint.padding_id,
        )

    passages = [lane([Purpose.PASSAGE], 1, settings.passage_niceness) for _ in range(threads)]
    return [lane([Purpose.QUERY, Purpose.RERANK], threads, 0), *passages]
