"""Cuts texts to a number of tokens, at the edge of a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quintet_tokenizer.chunking import OffsetTokenizer
from quintet_tokenizer.edges import token_edges
from quintet_tokenizer.models import IntArray, Side, Span, Truncated


def truncate_texts(
    texts: Sequence[str], tokenizer: OffsetTokenizer, *, max_tokens: int, side: Side
) -> list[Truncated]:
    """Return what is left of each text: the longest piece from its other end that has at
    most `max_tokens` tokens when it is counted by itself. A text that fits is left
    whole; a piece has no white space where it was cut, and may be empty."""
    return [
        _truncate(text, offsets, tokenizer, max_tokens, side)
        for text, offsets in zip(texts, tokenizer.offsets(texts), strict=True)
    ]


def _truncate(
    text: str, offsets: IntArray, tokenizer: OffsetTokenizer, max_tokens: int, side: Side
) -> Truncated:
    original = len(offsets)
    if original <= max_tokens:
        return Truncated(Span(0, len(text)), original, original)
    edges = token_edges(offsets, len(text), max_gap=len(text))
    budget = max_tokens
    while True:
        if side is Side.END:
            kept = int(np.searchsorted(edges.tokens, budget, side="right")) - 1
            piece = text[: edges.positions[kept]].rstrip()
            span = Span(0, len(piece))
        else:
            kept = int(np.searchsorted(edges.tokens, original - budget))
            piece = text[edges.positions[kept] :].lstrip()
            span = Span(len(text) - len(piece), len(text))
        (count,) = tokenizer.count([piece])
        if count <= max_tokens:
            return Truncated(span, count, original)
        # A word that was cut may have more tokens than its part had in the whole.
        budget = max(0, budget - (count - max_tokens))
