"""Kept counts: which texts, under which key, and what is never kept."""

from __future__ import annotations

from collections.abc import Sequence

from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.cache.use import CacheUse
from quintet_tokenizer.count_cache import LEAST_CHARS, MOST_CHARS, CountCache
from quintet_tokenizer.models import Counts, Identity

MODEL = Identity("m", "r1")
LONG, LONGER = "a" * LEAST_CHARS, "b" * (LEAST_CHARS + 1)


class Counting:
    """Counts characters as the model given, and notes how many texts it was asked for."""

    def __init__(self, model: Identity = MODEL, *, estimated: bool = False) -> None:
        self._model = model
        self._estimated = estimated
        self.asked: list[int] = []

    async def __call__(self, texts: Sequence[str]) -> Counts:
        self.asked.append(len(texts))
        return Counts(self._model, [len(text) for text in texts], self._estimated)


def cache() -> CountCache:
    return CountCache(CacheSettings(memory_bytes=2**20))


async def ask(
    kept: CountCache,
    *texts: str,
    model: Identity = MODEL,
    special: bool = False,
    count: Counting | None = None,
) -> tuple[list[int], CacheUse | None]:
    """Return how many texts were counted, call by call, and what the cache did."""
    count = count or Counting(model)
    counts, use = await kept.get_or_count(model, texts, special=special, count=count)
    assert counts.counts == [len(text) for text in texts]
    return count.asked, use


async def test_a_text_is_counted_once() -> None:
    kept = cache()
    assert (await ask(kept, LONG, LONGER))[0] == [2]
    counted, use = await ask(kept, LONGER, LONG)
    assert counted == []
    assert use is not None
    assert (use.outcome, use.lookups, use.hits) == ("hit", 2, 2)


async def test_a_short_text_is_counted_each_time_and_not_looked_up() -> None:
    kept = cache()
    for _ in range(2):
        assert await ask(kept, "short") == ([1], None)
    await ask(kept, LONG)
    counted, use = await ask(kept, "short", LONG, LONGER)
    assert counted == [2]
    assert use is not None
    assert (use.outcome, use.lookups, use.hits) == ("miss", 2, 1)


async def test_a_request_of_many_characters_is_not_looked_up() -> None:
    kept = cache()
    for _ in range(2):
        assert await ask(kept, "a" * (MOST_CHARS + 1)) == ([1], None)
    assert kept.tiers[0].stats().entries == 0


async def test_special_tokens_and_another_revision_have_keys_of_their_own() -> None:
    kept = cache()
    await ask(kept, LONG)
    for other in (Identity("m", "r2"), Identity("n", "r3")):
        assert (await ask(kept, LONG, model=other))[0] == [1]
    assert (await ask(kept, LONG, special=True))[0] == [1]


async def test_a_model_by_another_name_shares_the_counts_of_its_revision() -> None:
    kept = cache()
    await ask(kept, LONG)
    assert (await ask(kept, LONG, model=Identity("alias", "r1")))[0] == []


async def test_estimates_are_not_kept() -> None:
    kept = cache()
    await ask(kept, LONGER)
    failing = Counting(Identity("m", ""), estimated=True)
    counts, _ = await kept.get_or_count(MODEL, [LONG, LONGER], special=False, count=failing)
    assert counts == Counts(Identity("m", ""), [len(LONG), len(LONGER)], True)
    assert failing.asked == [1]
    assert (await ask(kept, LONG))[0] == [1]


async def test_all_is_counted_anew_when_the_tokenizer_has_changed_meanwhile() -> None:
    kept = cache()
    await ask(kept, LONG)
    newer = Counting(Identity("m", "r2"))
    counts, use = await kept.get_or_count(MODEL, [LONG, LONGER], special=False, count=newer)
    assert counts.model.revision == "r2"
    assert use is None
    assert newer.asked == [1, 2]
    assert (await ask(kept, LONGER))[0] == [1]
