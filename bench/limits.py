"""What the machine's arithmetic allows, measured in the same run as what is held to it."""

from __future__ import annotations

from bench.figures import Figure, alone
from bench.run import Run

PASSAGE_GFLOP = 2.87
"""Of one 128-token text through all-MiniLM-L6-v2: 6 layers of 12 x 384² weights, twice,
for each token, and attention."""


async def bench(run: Run) -> list[Figure]:
    """Multiply matrices."""
    async with run.worker("gemm", *(["quick"] if run.quick else [])) as gemm:

        async def gflops(precision: str) -> float:
            return float(await gemm(precision=precision, seconds=0.05 if run.quick else 1.0))

        found = await run.interleaved(
            {
                "matrices in bfloat16": lambda: gflops("bfloat16"),
                "matrices in float32": lambda: gflops("float32"),
            }
        )
    figures = []
    for name, samples in found.items():
        precision = name.rpartition(" ")[2]
        figures += [
            alone(f"limits: {precision} matrix product", "GFLOP/s", samples),
            alone(
                f"limits: 128-token texts by {precision} arithmetic",
                "texts/s",
                [it / PASSAGE_GFLOP for it in samples],
            ),
        ]
    return figures
