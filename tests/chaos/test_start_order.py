"""One order of the suite "start-order", looked at closely."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.start_order import RECOVERY, answers, parts, serves


@pytest.mark.timeout(240)
async def test_services_that_start_first_wait_for_what_they_need_and_then_serve(
    tmp_path: Path,
) -> None:
    async with parts(tmp_path) as it:
        for name in ("gateway", "retriever"):
            it.start(name)
        for name in ("gateway", "retriever"):
            assert not await serves(it.address(name))
        for name in ("tokenizer", "embedder", "generator"):
            it.start(name)
        # Without Redis.
        await asyncio.gather(*(it.starting[n] for n in ("tokenizer", "embedder", "generator")))
        assert not await serves(it.address("gateway"))
        it.start("postgres")
        it.start("valkey")
        await it.all_ready()
        assert it.ready_at["retriever"] - it.ready_at["postgres"] < RECOVERY
        assert it.ready_at["gateway"] - it.ready_at["retriever"] < RECOVERY
        await answers(it.address("gateway"))
