"""Vectors that replicas of the embedder share through Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from redis import Redis

from quintet_embedder.models import Embedding, Purpose
from quintet_embedder.vector_cache import VectorCache
from quintet_servicekit.cache import CacheSettings, open_remote
from quintet_servicekit.cache.use import CacheUse

TEXTS = [f"text {number}" for number in range(40)]
QUERY, PASSAGE = Purpose.QUERY, Purpose.PASSAGE


@asynccontextmanager
async def replica(redis_url: str, namespace: str = "quintet") -> AsyncIterator[VectorCache]:
    settings = CacheSettings(
        redis_url=SecretStr(redis_url), redis_timeout_seconds=1, namespace=namespace
    )
    async with open_remote(settings) as remote:
        kept = VectorCache(settings, remote, passage_share=0.25)
        yield kept
        await kept.aclose()


def of(text: str) -> Embedding:
    return Embedding(text.encode().ljust(16, b"-"), len(text), False)


async def ask(
    kept: VectorCache,
    texts: Sequence[str],
    *,
    revision: str = "r",
    purpose: Purpose = PASSAGE,
) -> tuple[list[int], CacheUse]:
    """Return the indexes of the texts that had to be computed, and what the cache did."""
    asked: list[int] = []

    async def compute(indexes: Sequence[int]) -> list[Embedding]:
        asked.extend(indexes)
        return [of(texts[index]) for index in indexes]

    embeddings, use = await kept.get_or_compute(
        revision, texts, purpose, truncate=False, compute=compute
    )
    assert embeddings == [of(text) for text in texts]
    return asked, use


async def test_a_replica_finds_what_another_has_computed_then_has_it_in_memory(
    redis_url: str,
) -> None:
    async with replica(redis_url) as one:
        await ask(one, TEXTS)
    async with replica(redis_url) as two:
        asked, use = await ask(two, TEXTS)
        assert (asked, use.outcome, use.store, use.hits) == ([], "hit", "redis", 40)
        asked, use = await ask(two, TEXTS)
        assert (asked, use.outcome, use.store, use.hits) == ([], "hit", "memory", 40)


@pytest.mark.parametrize(
    ("namespace", "revision", "purpose"),
    [("another", "r", PASSAGE), ("quintet", "another", PASSAGE), ("quintet", "r", QUERY)],
)
async def test_another_namespace_revision_or_purpose_finds_nothing(
    redis_url: str, namespace: str, revision: str, purpose: Purpose
) -> None:
    async with replica(redis_url) as one:
        await ask(one, TEXTS)
    async with replica(redis_url, namespace) as two:
        asked, use = await ask(two, TEXTS, revision=revision, purpose=purpose)
    assert (len(asked), use.outcome, use.hits) == (40, "miss", 0)


async def test_damaged_values_are_computed_anew(redis_url: str) -> None:
    async with replica(redis_url) as one:
        await ask(one, TEXTS)
    with Redis.from_url(redis_url) as client:
        names = sorted(client.keys("quintet:l2-passages:*"))
        assert len(names) == 40
        for name, broken in zip(names, (b"", b"Qc", b"x" * 60), strict=False):
            client.set(name, broken)
    async with replica(redis_url) as two:
        asked, use = await ask(two, TEXTS)
        assert (len(asked), use.hits) == (3, 37)
        assert two.tiers[1].stats().errors == 3
    async with replica(redis_url) as three:
        assert (await ask(three, TEXTS))[0] == []
