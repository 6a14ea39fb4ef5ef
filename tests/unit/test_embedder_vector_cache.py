"""Kept vectors, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quintet_embedder.models import Embedding, Purpose
from quintet_embedder.vector_cache import VectorCache, decode, encode
from quintet_servicekit.cache import CacheSettings

QUERY, PASSAGE = Purpose.QUERY, Purpose.PASSAGE


class Computing:
    """Computes a text's bytes, padded to floats, and notes what it was asked for."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.asked: list[list[int]] = []

    async def __call__(self, indexes: Sequence[int]) -> list[Embedding]:
        self.asked.append(list(indexes))
        await asyncio.sleep(0)
        return [of(self._texts[index]) for index in indexes]


def of(text: str) -> Embedding:
    return Embedding(text.encode().ljust(8, b"-")[:8], len(text), False)


def cache(memory_bytes: int = 2**20, passage_share: float = 0.25) -> VectorCache:
    return VectorCache(CacheSettings(memory_bytes=memory_bytes), None, passage_share=passage_share)


async def ask(
    kept: VectorCache,
    *texts: str,
    revision: str = "r",
    purpose: Purpose = QUERY,
    truncate: bool = False,
) -> list[list[int]]:
    """Return what had to be computed, after a look at the result."""
    compute = Computing(texts)
    embeddings, use = await kept.get_or_compute(
        revision, texts, purpose, truncate=truncate, compute=compute
    )
    assert embeddings == [of(text) for text in texts]
    assert use.lookups == len(texts)
    return compute.asked


def test_the_binary_form_is_the_vector_after_five_bytes() -> None:
    embedding = Embedding(bytes(range(8)), 300, True)
    assert decode(encode(embedding)) == embedding
    assert encode(embedding)[5:] == embedding.vector


@pytest.mark.parametrize(
    "raw", [b"", b"\1\0\0\0", b"\1\0\0\0\0", b"\1\0\0\0\0abc", b"\1\0\0\0\2abcd"]
)
def test_what_is_no_embedding_is_refused(raw: bytes) -> None:
    with pytest.raises(Exception, match=r"embedding|buffer"):
        decode(raw)


async def test_a_text_is_computed_once() -> None:
    kept = cache()
    assert await ask(kept, "a", "b") == [[0, 1]]
    assert await ask(kept, "b", "c", "a") == [[1]]
    assert await ask(kept, "c") == []
    assert await ask(kept, "d") == [[0]]
    assert await ask(kept, "d", "a") == []


async def test_equal_texts_of_a_request_are_computed_once() -> None:
    assert await ask(cache(), "a", "b", "a") == [[0, 1]]


async def test_a_lone_text_asked_for_a_thousand_times_at_once_is_computed_once() -> None:
    kept = cache()
    asked = await asyncio.gather(*(ask(kept, "a") for _ in range(1_000)))
    assert sum(map(len, asked)) == 1


async def test_who_leaves_does_not_end_what_another_waits_for() -> None:
    kept, go = cache(), asyncio.Event()

    async def compute(indexes: Sequence[int]) -> list[Embedding]:
        await go.wait()
        return [of("a")]

    first, second = (
        asyncio.create_task(kept.get_or_compute("r", ["a"], QUERY, truncate=False, compute=compute))
        for _ in range(2)
    )
    await asyncio.sleep(0.01)
    first.cancel()
    go.set()
    embeddings, use = await second
    assert embeddings == [of("a")]
    assert use.outcome == "shared"


@pytest.mark.parametrize(
    "other", [{"revision": "s"}, {"purpose": PASSAGE}, {"truncate": True}], ids=str
)
async def test_another_revision_tier_or_truncation_finds_nothing(other: dict[str, object]) -> None:
    kept = cache()
    await ask(kept, "a", "b")
    assert await ask(kept, "a", "b", **other) == [[0, 1]]  # type: ignore[arg-type]
    assert await ask(kept, "a", **other) == []  # type: ignore[arg-type]


async def test_passages_do_not_push_queries_out_of_memory() -> None:
    kept = cache(memory_bytes=40_000)
    await ask(kept, "a question")
    for number in range(10):
        await ask(kept, *(f"{number} {index}" for index in range(64)), purpose=PASSAGE)
    assert await ask(kept, "a question") == []
    assert [it.stats().max_bytes for it in kept.tiers] == [30_000, 10_000]


async def test_a_failure_is_told_to_all_who_wait_and_not_kept() -> None:
    kept = cache()

    async def fails(indexes: Sequence[int]) -> list[Embedding]:
        raise ValueError("broken")

    for texts in (["a"], ["a", "b"]):
        with pytest.raises(ValueError, match="broken"):
            await kept.get_or_compute("r", texts, QUERY, truncate=False, compute=fails)
    assert await ask(kept, "a") == [[0]]


async def test_the_use_tells_of_the_first_that_was_no_hit_and_how_many_were() -> None:
    kept = cache()

    async def use_of(*texts: str) -> tuple[str, int, int, bool, bool]:
        _, use = await kept.get_or_compute(
            "r", texts, QUERY, truncate=False, compute=Computing(texts)
        )
        has_age, has_saved = use.age_seconds is not None, bool(use.saved_seconds)
        return use.outcome, use.lookups, use.hits, has_age, has_saved

    assert await use_of("a", "b") == ("miss", 2, 0, False, False)
    assert await use_of("a", "b") == ("hit", 2, 2, True, True)
    assert await use_of("a", "c") == ("miss", 2, 1, False, True)
    assert await use_of("d") == ("miss", 1, 0, False, False)
    assert await use_of("d") == ("hit", 1, 1, True, True)
