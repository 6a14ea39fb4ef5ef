"""What the tokenizer service does: finds the tokenizer and runs it off the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from prometheus_client import Counter

from quintet_servicekit import telemetry
from quintet_servicekit.cache.use import CacheUse, note_use
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.token_estimate import estimate_tokens
from quintet_tokenizer.chunking import OffsetTokenizer, chunk_texts
from quintet_tokenizer.models import (
    ChunkedText,
    Counts,
    Identity,
    Model,
    Side,
    Tokens,
    Truncated,
)
from quintet_tokenizer.truncation import truncate_texts

T = TypeVar("T")

_TOKENS = Counter(
    "quintet_tokenizer_tokens_total",
    "Tokens of texts that were counted, without those whose count was kept; method is "
    "counted or estimated.",
    ("model", "method"),
)


class TextTokenizer(OffsetTokenizer, Protocol):
    """One model's tokenizer; see `tokenizer.LoadedTokenizer`."""

    revision: str
    vocabulary_size: int
    special_tokens: int

    def encode(self, texts: Sequence[str], *, special: bool, offsets: bool) -> list[Tokens]:
        """Return the tokens of each text."""

    def decode(self, sequences: Sequence[Sequence[int]], *, keep_special: bool) -> list[str]:
        """Return the text of each sequence."""


class Tokenizers(Protocol):
    """The tokenizers by name; see `registry.Registry`."""

    def resolve(self, name: str) -> str:
        """Return the model's name ("": the default); raises MODEL_NOT_FOUND."""

    def is_loaded(self, name: str) -> bool:
        """Return whether `get` would answer at once."""

    def get(self, name: str) -> TextTokenizer:
        """Return the tokenizer, loading it if need be; blocks."""

    def models(self) -> list[Model]:
        """Return every model, by name."""


class KeptCounts(Protocol):
    """The counts that are kept; see `count_cache.CountCache`."""

    async def get_or_count(
        self,
        model: Identity,
        texts: Sequence[str],
        *,
        special: bool,
        count: Callable[[Sequence[str]], Awaitable[Counts]],
    ) -> tuple[Counts, CacheUse | None]:
        """Return the count of each text; `count` counts those that are not kept."""


class Engine:
    """Runs tokenizers. `tiny_chars` is the size of a request, in characters, up to which
    it is worked on at once, on the event loop."""

    def __init__(
        self,
        tokenizers: Tokenizers,
        executor: BoundedExecutor,
        kept: KeptCounts,
        *,
        tiny_chars: int,
    ) -> None:
        self._tokenizers = tokenizers
        self._executor = executor
        self._kept = kept
        self._tiny_chars = tiny_chars

    async def warm_up(self) -> None:
        """Load the default model; raises when it cannot be loaded."""
        await self._run("", [], lambda tokenizer: tokenizer.count(["warm-up"]))

    async def count(self, model: str, texts: Sequence[str], *, special: bool) -> Counts:
        """Return the number of tokens of each text, or estimates when the tokenizer
        fails, which is logged.

        Raises MODEL_NOT_FOUND and OVERLOADED.
        """
        name = self._tokenizers.resolve(model)

        def count(some: Sequence[str]) -> Awaitable[Counts]:
            return self._count(name, some, special)

        if not self._tokenizers.is_loaded(name):  # its revision is not known yet
            return await count(texts)
        identity = Identity(name, self._tokenizers.get(name).revision)
        counts, use = await self._kept.get_or_count(identity, texts, special=special, count=count)
        if use is None:
            return counts
        note_use(use)
        return replace(counts, cache=use)

    async def _count(self, name: str, texts: Sequence[str], special: bool) -> Counts:
        def work() -> Counts:
            try:
                tokenizer = self._tokenizers.get(name)
                extra = tokenizer.special_tokens if special else 0
                counts = [count + extra for count in tokenizer.count(texts)]
                return Counts(Identity(name, tokenizer.revision), counts, estimated=False)
            except Exception as error:
                # That it cannot be loaded is logged where that is tried.
                if not isinstance(error, ServiceError):
                    telemetry.logger().warning("counts are estimated", model=name, exc_info=error)
                counts = [estimate_tokens(text) for text in texts]
                return Counts(Identity(name, ""), counts, estimated=True)

        counts = await self._off_loop(name, texts, work)
        method = "estimated" if counts.estimated else "counted"
        _TOKENS.labels(name, method).inc(sum(counts.counts))
        return counts

    async def encode(
        self, model: str, texts: Sequence[str], *, special: bool, offsets: bool
    ) -> tuple[Identity, list[Tokens]]:
        """Return the tokens of each text.

        Raises MODEL_NOT_FOUND, OVERLOADED, and DEPENDENCY_UNAVAILABLE when the
        tokenizer cannot be loaded, as do the methods below.
        """
        return await self._run(
            model, texts, lambda it: it.encode(texts, special=special, offsets=offsets)
        )

    async def decode(
        self, model: str, sequences: Sequence[Sequence[int]], *, keep_special: bool
    ) -> tuple[Identity, list[str]]:
        """Return the text of each sequence; raises INVALID_FIELD for an id that is not
        below the vocabulary's size."""

        def work(tokenizer: TextTokenizer) -> list[str]:
            _check_ids(sequences, tokenizer.vocabulary_size)
            return tokenizer.decode(sequences, keep_special=keep_special)

        return await self._run(model, sequences, work)

    async def truncate(
        self, model: str, texts: Sequence[str], *, max_tokens: int, side: Side
    ) -> tuple[Identity, list[Truncated]]:
        """Return what is left of each text."""
        return await self._run(
            model, texts, lambda it: truncate_texts(texts, it, max_tokens=max_tokens, side=side)
        )

    async def chunk(
        self, model: str, texts: Sequence[str], *, max_tokens: int, overlap: int, markdown: bool
    ) -> tuple[Identity, list[ChunkedText]]:
        """Return the chunks of each text; those of `markdown` follow its structure."""
        return await self._run(
            model,
            texts,
            lambda it: chunk_texts(
                texts, it, max_tokens=max_tokens, overlap=overlap, markdown=markdown
            ),
        )

    def models(self) -> list[Model]:
        """Return every model, by name."""
        return self._tokenizers.models()

    async def _run(
        self, model: str, inputs: Sequence[Sequence[object]], work: Callable[[TextTokenizer], T]
    ) -> tuple[Identity, T]:
        name = self._tokenizers.resolve(model)

        def with_tokenizer() -> tuple[Identity, T]:
            tokenizer = self._tokenizers.get(name)
            return Identity(name, tokenizer.revision), work(tokenizer)

        return await self._off_loop(name, inputs, with_tokenizer)

    async def _off_loop(
        self, name: str, inputs: Sequence[Sequence[object]], work: Callable[[], T]
    ) -> T:
        if sum(map(len, inputs)) <= self._tiny_chars and self._tokenizers.is_loaded(name):
            return work()
        return await self._executor.run(work)


def _check_ids(sequences: Sequence[Sequence[int]], vocabulary_size: int) -> None:
    violations = [
        Violation(f"sequences[{index}].ids", f"must be below {vocabulary_size}")
        for index, ids in enumerate(sequences)
        if ids and max(ids) >= vocabulary_size
    ]
    if violations:
        raise ServiceError(
            Reason.INVALID_FIELD,
            f"{violations[0].field} {violations[0].description}",
            violations=violations,
        )
