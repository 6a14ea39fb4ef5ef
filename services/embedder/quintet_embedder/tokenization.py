"""Texts into the token ids that a model reads, without ever cutting in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from quintet_embedder.models import TokenIds
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.executor import BoundedExecutor

INLINE_CHARS = 4_000
"""Requests of fewer characters are tokenized in the event loop, in less than 0.3 ms,
which is less than a thread's hand-over costs under load."""


class ModelTokenizer:
    """The tokenizer of one model that reads `max_tokens`, special tokens included."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        # Files carry the settings of the training: cut at 128, pad to it.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._thread = BoundedExecutor("tokenize", threads=1, queue=256)

    async def encode(
        self, names: Sequence[str], texts: Sequence[str], *, truncate: bool
    ) -> tuple[list[TokenIds], list[bool]]:
        """Return the ids of each text, and whether its end was cut off.

        Raises `ServiceError` INPUT_TOO_LONG, with the `names` of the texts that the
        model cannot read whole, unless `truncate`.
        """
        if sum(map(len, texts)) < INLINE_CHARS:
            return self._encode(names, texts, truncate)
        return await self._thread.run(self._encode, names, texts, truncate)

    def _encode(
        self, names: Sequence[str], texts: Sequence[str], truncate: bool
    ) -> tuple[list[TokenIds], list[bool]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        ids: list[TokenIds] = [encoding.ids for encoding in encoded]
        too_long = [len(each) > self._max_tokens for each in ids]
        if any(too_long) and not truncate:
            raise self._too_long(names, ids, too_long)
        for index, long in enumerate(too_long):
            if long:
                ids[index] = self._truncated(texts[index])
        return ids, too_long

    def _truncated(self, text: str) -> TokenIds:
        plain = self._tokenizer.encode(text, add_special_tokens=False)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        plain.truncate(self._max_tokens - special)
        ids: TokenIds = self._tokenizer.post_process(plain).ids
        return ids

    def _too_long(
        self, names: Sequence[str], ids: Sequence[TokenIds], too_long: Sequence[bool]
    ) -> ServiceError:
        limit, first = self._max_tokens, too_long.index(True)
        return ServiceError(
            Reason.INPUT_TOO_LONG,
            f"{names[first]} has {len(ids[first])} tokens with the model's own, and the "
            f"model reads at most {limit}",
            metadata={"limit": str(limit), "actual": str(len(ids[first])), "unit": "tokens"},
            violations=[
                Violation(name, f"must have at most {limit} tokens")
                for name, long in zip(names, too_long, strict=True)
                if long
            ],
        )

    async def close(self) -> None:
        """End the thread."""
        await self._thread.close()
