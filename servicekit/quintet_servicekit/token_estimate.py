"""The number of tokens of a text where no tokenizer can say."""

from __future__ import annotations

_BYTES_PER_TOKEN = 3
"""UTF-8 bytes. English has about 4.5 a token, German 3.5, Chinese 3: an estimate that
errs does so on the high side, and what it is for, a budget, still holds."""


def estimate_tokens(text: str) -> int:
    """Return a number of tokens that `text` seldom exceeds; 0 only for an empty text."""
    return -(-len(text.encode("utf-8")) // _BYTES_PER_TOKEN)
