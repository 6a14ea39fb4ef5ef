"""Texts into the token ids that a model reads, without ever cutting in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from quintet_embedder.models import TokenIds


class ModelTokenizer:
    """The tokenizer of one model."""

    def __init__(self, file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        # Files carry the settings of the training: cut at 128, pad to it.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each text, whole, with the special tokens around them."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def truncate(self, text: str, max_tokens: int) -> TokenIds:
        """Return the ids of the longest beginning of `text` that fits `max_tokens`,
        special tokens included."""
        plain = self._tokenizer.encode(text, add_special_tokens=False)
        plain.truncate(max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False))
        return self._tokenizer.post_process(plain).ids
