"""A short run of what `make chaos` does at length; see `chaos.fuzz.suite`."""

from __future__ import annotations

from support.stack import TestStack

from chaos.fuzz.suite import checks, run

CALLS = 500
SEED = 5


async def test_no_message_metadata_or_stream_makes_a_service_fail(stack: TestStack) -> None:
    journal = await run(stack, CALLS, SEED)
    assert [check for check in checks(journal) if not check.passed] == []
