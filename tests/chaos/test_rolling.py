"""A cut of the suite "rolling"."""

from __future__ import annotations

import pytest
from support.stack import TestStack

from chaos.rolling import roll


@pytest.mark.timeout(300)
async def test_restarting_a_replica_of_each_service_under_load_loses_no_call(
    stack: TestStack,
) -> None:
    tally = await roll(stack, lambda *_: None, 1, beside=True)
    assert tally.failed == []
    assert tally.degraded == []
    assert tally.lost == []
    assert tally.statuses == [0] * 5
    assert min(tally.calls[name] for name in ("ask", "ask_stream", "search", "ingest")) > 10
