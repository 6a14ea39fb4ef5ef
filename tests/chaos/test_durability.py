"""A short run of what `make chaos` does at length; see `chaos.durability`."""

from __future__ import annotations

from support.stack import TestStack

from chaos.durability import checks, run

KILLS = 10
SEED = 3


async def test_no_acknowledged_document_is_lost_whatever_is_killed(stack: TestStack) -> None:
    found = await run(stack, KILLS, SEED)
    assert [check for check in checks(found) if not check.passed] == []
