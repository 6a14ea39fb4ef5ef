"""As `chain`, with the local language model: 48 tokens of answer from five passages."""

from __future__ import annotations

from bench.chain import measured
from bench.figures import Figure
from bench.run import Run
from quintet_generator.settings import GeneratorSettings

ANSWER_TOKENS = 48


async def bench(run: Run) -> list[Figure]:
    """Measure with the language model."""
    async with run.stack() as stack:
        return await measured(
            run,
            stack,
            "chain_model",
            model=GeneratorSettings().served_name,
            alone_asks=6,
            together=16,
            max_tokens=run.size(ANSWER_TOKENS, 4),
        )
