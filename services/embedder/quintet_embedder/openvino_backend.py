"""Runs a model on OpenVINO: the processor's way, about twice as fast as torch.

The model is converted once from the same weights, with its pooling and its
normalisation, by `quintet_embedder.prepare`; after that torch is never loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from quintet_embedder.models import Purpose, TextStates, TokenIds, Vectors
from quintet_embedder.padding import padded

MODEL_FILE = "model.xml"
LENGTH_STEP = 8
CACHED_SHAPES = 64
"""The engine keeps compiled code and memory for each shape it has met, 5,000 of them by
default: a hundred MiB after a few thousand batches of all lengths. With lengths in
steps of 8 and 64 shapes it stays flat, at the cost of 3 % more padding."""
VECTORS, STATES = 0, 1
"""The converted model's outputs: pooled vectors, and the tokens' last hidden states."""


class OpenVinoLane:
    """One copy of the model with threads of its own, for texts of `purposes`.

    `niceness` is the priority that its threads give up, 0 to 19.
    """

    def __init__(
        self,
        folder: Path,
        *,
        purposes: Sequence[Purpose],
        dtype: str,
        threads: int,
        niceness: int,
        padding_id: int,
    ) -> None:
        self.purposes = tuple(purposes)
        self.name = ""
        self._folder = folder
        self._dtype = dtype
        self._threads = threads
        self._niceness = niceness
        self._padding_id = padding_id
        self._request: ov.InferRequest | None = None

    def open(self) -> None:
        """Load the model, in the thread that will call `encode`; blocking."""
        if self._niceness:
            # Of this thread, and of those that the engine starts from it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        core = ov.Core()
        if self._dtype == "auto":
            native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            self._dtype = "bfloat16" if native else "float32"
        compiled = core.compile_model(
            self._folder / MODEL_FILE,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[self._dtype],
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": self._threads,
                # Pinned threads of two lanes, or of two processes, would share a core
                # and leave the other idle.
                "ENABLE_CPU_PINNING": False,
                "CPU_RUNTIME_CACHE_CAPACITY": str(CACHED_SHAPES),
            },
        )
        self.name = f"openvino-{ov.__version__.split('-')[0]}/{self._dtype}"
        self._request = compiled.create_infer_request()

    def encode(self, ids: Sequence[TokenIds]) -> Vectors:
        """Return the vectors of the texts, float32 [texts, dimension]."""
        self._infer(ids)
        return self._output(VECTORS)

    def encode_states(self, ids: Sequence[TokenIds]) -> list[TextStates]:
        """Return the vector of each text and the states of its tokens."""
        self._infer(ids)
        return [
            TextStates(vector, tokens[: len(each)])
            for vector, tokens, each in zip(
                self._output(VECTORS), self._output(STATES), ids, strict=True
            )
        ]

    def _infer(self, ids: Sequence[TokenIds]) -> None:
        assert self._request is not None, "open() comes first"
        # Ours for the length of the call: the engine need not copy them.
        rectangles = padded(ids, self._padding_id, LENGTH_STEP)
        self._request.start_async(list(rectangles), share_inputs=True)
        self._request.wait()

    def _output(self, index: int) -> Vectors:
        assert self._request is not None, "open() comes first"
        # Copied: the engine writes its next result into the same memory.
        return np.array(self._request.get_output_tensor(index).data, dtype=np.float32)


def is_prepared(folder: Path) -> bool:
    """Whether a converted model is there."""
    return (folder / MODEL_FILE).is_file()
