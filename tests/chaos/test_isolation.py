"""A short run of what `make chaos` does at length; see `chaos.isolation`."""

from __future__ import annotations

from support.stack import TestStack

from chaos.isolation import checks, run

ATTEMPTS = 200
SEED = 7


async def test_nothing_that_a_tenant_sends_shows_or_changes_what_another_has(
    stack: TestStack,
) -> None:
    journal = await run(stack, ATTEMPTS, SEED)
    assert journal.changed == []
    assert [check for check in checks(journal) if not check.passed] == []
    # It has something of its own to find: not all was refused.
    assert journal.codes["OK"] > ATTEMPTS // 5
