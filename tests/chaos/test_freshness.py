"""A short run of what `make chaos` does at length; see `chaos.freshness`."""

from __future__ import annotations

from support.stack import TestStack

from chaos.freshness import checks, run

OPERATIONS = 500
SECONDS = 25.0
SEED = 4


async def test_no_answer_is_older_than_it_may_be_whatever_is_killed(stack: TestStack) -> None:
    journal = await run(stack, OPERATIONS, SEED, SECONDS)
    assert [check for check in checks(journal) if not check.passed] == []
