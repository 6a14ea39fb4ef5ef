"""What the engine does when a tokenizer fails, and where it works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.token_estimate import estimate_tokens
from quintet_tokenizer.count_cache import CountCache
from quintet_tokenizer.engine import Engine
from quintet_tokenizer.models import IntArray, Model, Side, Tokens


class FakeTokenizer:
    """Counts characters, and fails when told to."""

    revision = "r1"
    vocabulary_size = 10
    special_tokens = 2

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.threads: list[str] = []

    def count(self, texts: Sequence[str]) -> list[int]:
        self.threads.append(threading.current_thread().name)
        if self.gate:
            self.gate.wait(10)
        if self.error:
            raise self.error
        return [len(text) for text in texts]

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        raise self.error or AssertionError

    def encode(self, texts: Sequence[str], *, special: bool, offsets: bool) -> list[Tokens]:
        raise self.error or AssertionError

    def decode(self, sequences: Sequence[Sequence[int]], *, keep_special: bool) -> list[str]:
        return ["text"] * len(sequences)


class FakeTokenizers:
    """One model, "m"."""

    def __init__(self, tokenizer: FakeTokenizer) -> None:
        self._tokenizer = tokenizer
        self.error: Exception | None = None

    def resolve(self, name: str) -> str:
        if name not in ("", "m"):
            raise ServiceError(Reason.MODEL_NOT_FOUND, "no such model")
        return "m"

    def is_loaded(self, name: str) -> bool:
        return self.error is None

    def get(self, name: str) -> FakeTokenizer:
        if self.error:
            raise self.error
        return self._tokenizer

    def models(self) -> list[Model]:
        return []


@pytest.fixture
def tokenizer() -> FakeTokenizer:
    return FakeTokenizer()


@pytest.fixture
def tokenizers(tokenizer: FakeTokenizer) -> FakeTokenizers:
    return FakeTokenizers(tokenizer)


@pytest.fixture
async def engine(tokenizers: FakeTokenizers) -> AsyncIterator[Engine]:
    executor = BoundedExecutor("pool", threads=1, queue=1)
    kept = CountCache(CacheSettings(memory_bytes=2**20))
    yield Engine(tokenizers, executor, kept, tiny_chars=5)
    await executor.close()


async def test_counts_are_the_tokenizers_with_special_tokens_if_asked(engine: Engine) -> None:
    counts = await engine.count("", ["abc", ""], special=True)
    assert (counts.counts, counts.estimated) == ([5, 2], False)
    assert (counts.model.name, counts.model.revision) == ("m", "r1")


async def test_counts_are_estimated_when_the_tokenizer_fails(
    engine: Engine, tokenizer: FakeTokenizer
) -> None:
    tokenizer.error = RuntimeError("broken")
    for text in ("tiny", "longer than tiny"):
        counts = await engine.count("m", [text], special=False)
        assert (counts.counts, counts.estimated) == ([estimate_tokens(text)], True)
        assert counts.model.revision == ""


async def test_counts_are_estimated_when_the_tokenizer_cannot_be_loaded(
    engine: Engine, tokenizers: FakeTokenizers
) -> None:
    tokenizers.error = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "gone")
    assert (await engine.count("m", ["abc"], special=False)).estimated


async def test_other_methods_fail_when_the_tokenizer_cannot_be_loaded(
    engine: Engine, tokenizers: FakeTokenizers
) -> None:
    tokenizers.error = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "gone")
    for call in (
        engine.encode("", ["a"], special=False, offsets=False),
        engine.decode("", [[1]], keep_special=False),
        engine.truncate("", ["a"], max_tokens=1, side=Side.END),
        engine.chunk("", ["a"], max_tokens=8, overlap=0, markdown=True),
    ):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_an_unknown_model_is_not_estimated(engine: Engine) -> None:
    with pytest.raises(ServiceError) as caught:
        await engine.count("other", ["abc"], special=False)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


async def test_a_full_queue_is_overloaded_and_not_estimated(
    engine: Engine, tokenizer: FakeTokenizer
) -> None:
    tokenizer.gate = threading.Event()
    held = [asyncio.ensure_future(engine.count("", ["x" * 9], special=False)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as caught:
        await engine.count("", ["x" * 9], special=False)
    tokenizer.gate.set()
    assert caught.value.reason is Reason.OVERLOADED
    assert [counts.counts for counts in await asyncio.gather(*held)] == [[9], [9]]


async def test_only_tiny_requests_are_worked_on_in_the_event_loop(
    engine: Engine, tokenizer: FakeTokenizer
) -> None:
    await engine.count("", ["ab", "cde"], special=False)
    await engine.count("", ["ab", "cdef"], special=False)
    assert tokenizer.threads[0] == threading.current_thread().name
    assert tokenizer.threads[1].startswith("pool")


async def test_an_id_beyond_the_vocabulary_is_named(engine: Engine) -> None:
    with pytest.raises(ServiceError) as caught:
        await engine.decode("", [[9], [], [1, 10]], keep_special=False)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in caught.value.violations] == ["sequences[2].ids"]


def test_an_estimate_is_zero_for_an_empty_text_only() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abc", "abcd", "漢字")] == [0, 1, 1, 2, 2]
