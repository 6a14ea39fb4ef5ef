"""Cuts texts into chunks that hold at most so many tokens, each counted by itself.

A piece of a text may have more tokens than the text had there: "##ing" is one token,
and what it becomes at the beginning of a chunk may be two. So every window is counted
as it will be read, and the rare one that is too long is cut again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from quintet_tokenizer.models import Chunk, ChunkedText, IntArray, Span
from quintet_tokenizer.structure import PLAIN, Headings, read_structure
from quintet_tokenizer.windows import windows

MAX_CHARS_PER_TOKEN = 32
"""Characters of a chunk, for each of its `max_tokens`. Prose has 3 to 6; what has more
is white space, or a run of characters that the model knows no tokens for, which may
be as long as the text."""


class OffsetTokenizer(Protocol):
    """What chunking needs of a tokenizer; see `LoadedTokenizer`."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the offsets of each text's tokens, int64 [tokens, 2]."""


def chunk_texts(
    texts: Sequence[str],
    tokenizer: OffsetTokenizer,
    *,
    max_tokens: int,
    overlap: int,
    markdown: bool,
) -> list[ChunkedText]:
    """Return the chunks of each text: verbatim spans of 1 to `max_tokens` tokens that
    together hold every character that is not white space and that the tokenizer reads.

    Where the texts are `markdown`, chunks follow its headings and blocks.

    A single character of more than `max_tokens` tokens, which some tokenizers expand a
    ligature to, is a chunk by itself all the same.
    """
    results = []
    for text, offsets in zip(texts, tokenizer.offsets(texts), strict=True):
        structure = read_structure(text) if markdown else PLAIN
        spans = windows(
            text,
            offsets,
            max_tokens=max_tokens,
            overlap=overlap,
            max_chars=max_tokens * MAX_CHARS_PER_TOKEN,
            structure=structure,
        )
        counts = tokenizer.count([text[start:end] for start, end in spans])
        headings = Headings(structure.headings)
        chunks = [
            chunk._replace(headings=headings.above(chunk.span.start))
            for span, count in zip(spans, counts, strict=True)
            for chunk in _fitting(text, span, count, tokenizer, max_tokens)
        ]
        results.append(ChunkedText(chunks, tokens=len(offsets)))
    return results


def _fitting(
    text: str, span: Span, count: int, tokenizer: OffsetTokenizer, max_tokens: int
) -> Iterator[Chunk]:
    """Yield the span, of `count` tokens, whole if it fits, else in pieces that do."""
    start, end = span
    if count == 0:
        return
    if count <= max_tokens or end - start == 1:
        yield Chunk(span, count)
        return
    piece = text[start:end]
    (offsets,) = tokenizer.offsets([piece])
    # At most half as long, so that this ends whatever the tokenizer does.
    parts = windows(
        piece, offsets, max_tokens=max_tokens, overlap=0, max_chars=(len(piece) + 1) // 2
    )
    counts = tokenizer.count([piece[a:b] for a, b in parts])
    for (a, b), part_count in zip(parts, counts, strict=True):
        yield from _fitting(text, Span(start + a, start + b), part_count, tokenizer, max_tokens)
