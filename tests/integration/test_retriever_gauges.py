"""What a retriever's gauges tell of its database: what it holds, and who is connected."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY
from support.retriever import create, document, new_name, retriever_on, upsert

from quintet_retriever import relay


def told(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_gauges_tell_what_the_database_holds_and_of_the_pool(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_MEASURE_SECONDS", 0.1)
    async with retriever_on(database_url) as stub:
        for texts in (("a", "b"), ("c",)):
            name = (await create(stub, new_name())).name
            await upsert(stub, name, document("d", texts))
        async with asyncio.timeout(10):
            while told("quintet_index_chunks") != 3:  # noqa: ASYNC110 - a gauge tells nobody
                await asyncio.sleep(0.05)
        assert told("quintet_index_collections") == 2
        assert told("quintet_index_documents") == 2
        assert told("quintet_index_hnsw_bytes") > 0
        assert told("quintet_index_database_bytes") > told("quintet_index_hnsw_bytes")
        assert told("quintet_relay_active") == 1
        connections = [
            told("db_client_connections", pool="retriever", state=state)
            for state in ("used", "idle")
        ]
        assert 1 <= sum(connections) <= told("db_client_connections_max", pool="retriever")
        assert told("db_client_connections_pending_requests", pool="retriever") == 0
        relay._OLDEST.set(60)
    # Another one is active then: what this one saw last would outlast what it tells.
    assert told("quintet_relay_active") == 0
    for name in ("rows", "oldest_seconds"):
        assert told(f"quintet_outbox_{name}") == 0
    for name in ("collections", "documents", "chunks", "hnsw_bytes", "database_bytes"):
        assert told(f"quintet_index_{name}") == 0
