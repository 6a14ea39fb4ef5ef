"""Multiplies matrices as fast as this machine can: the limit of every model on it.

    python -m bench.workers.gemm [quick]

Tries two libraries and a few shapes, the way a user would look for the limit, and from
then on times the fastest of each precision. Quick: the first library and shape.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from bench.workers.serving import Answer, serve

SHAPES = ((4096, 384, 1536), (4096, 1536, 1536), (2048, 2048, 2048))
"""Rows, inner, columns: a batch of MiniLM's feed-forward layer, and larger ones."""

Multiply = Callable[[], object]


def _gflops(multiply: Multiply, shape: tuple[int, int, int], seconds: float) -> float:
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        multiply()
        times += 1
    rows, inner, columns = shape
    return times * 2e-9 * rows * inner * columns / (time.perf_counter() - began)


def _openvino(shape: tuple[int, int, int], precision: str, threads: int) -> Multiply:
    rows, inner, columns = shape
    random = np.random.default_rng(0)
    left = ops.parameter([rows, inner], np.float32)
    right = ops.constant(random.random((inner, columns), dtype=np.float32))
    model = ov.Model([ops.matmul(left, right, False, False)], [left])
    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
        },
    )
    request = compiled.create_infer_request()
    values = random.random((rows, inner), dtype=np.float32)
    return lambda: request.infer([values], share_inputs=True, share_outputs=True)


def _torch(shape: tuple[int, int, int], precision: str) -> Multiply:
    import torch

    rows, inner, columns = shape
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dtype = getattr(torch, precision)
    values = torch.rand(rows, inner).to(dtype)
    layer = torch.nn.Linear(inner, columns, bias=False).to(dtype).requires_grad_(False)
    return lambda: layer(values)


def _candidates(precision: str, threads: int) -> Iterator[tuple[Multiply, tuple[int, int, int]]]:
    for shape in SHAPES:
        yield _openvino(shape, precision, threads), shape
        if "quick" in sys.argv:
            return
        yield _torch(shape, precision), shape


def open_worker() -> Answer:
    """Find the fastest multiplication of each precision."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    best = {
        precision: max(_candidates(precision, threads), key=lambda it: _gflops(it[0], it[1], 0.15))
        for precision in ("bfloat16", "float32")
    }

    def gflops(precision: str, seconds: float) -> float:
        multiply, shape = best[precision]
        return _gflops(multiply, shape, seconds)

    return gflops


if __name__ == "__main__":
    serve(open_worker)
