"""Where a text may be cut between its tokens, as arrays.

Pure functions over a text and the offsets of its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quintet_servicekit.sentences import sentence_spans
from quintet_tokenizer.models import IntArray, Span
from quintet_tokenizer.structure import Structure

_LINE_END = re.compile(r"\n\s*")
_WHITE_SPACE = np.array([c for c in range(0x3001) if chr(c).isspace()], np.uint32)
_IDEOGRAPHIC = (
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Kana and Chinese characters, which are written without spaces between words."""


@dataclass(frozen=True, slots=True)
class Edges:
    """The places of a text that no token straddles.

    `positions`, int64 [n], are in code points, strictly rising from 0 to the text's
    length (0 alone for an empty text). `tokens`, int64 [n], is the number of tokens
    before each. What stands between two edges can only be kept whole or left out.
    """

    positions: IntArray
    tokens: IntArray

    def within(self, starts: IntArray, ends: IntArray) -> IntArray:
        """Return the last edge inside each of the ranges [start, end] that has one, as
        indices, rising."""
        found = np.searchsorted(self.positions, ends, side="right") - 1
        return np.unique(found[self.positions[found] >= starts])


def token_edges(offsets: IntArray, length: int, max_gap: int) -> Edges:
    """Return the edges of a text of `length` characters whose tokens stand at `offsets`,
    int64 [tokens, 2], by their start.

    Characters that no token covers go with the token before them (a combining mark
    that the tokenizer dropped stays with its letter), those before the first token
    with that. Tokens that share a character are never parted. Edges lie at most
    `max_gap` characters apart: where one token, or what goes with it, is longer, it
    may be cut, and its tokens count for its first piece.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    reached = np.maximum.accumulate(ends)
    parted = np.flatnonzero(starts[1:] >= reached[:-1]) + 1
    positions, first = np.unique(starts[parted], return_index=True)
    inner = (positions > 0) & (positions < length)
    positions = np.concatenate(([0], positions[inner], [length] if length else []))
    tokens = np.concatenate(([0], parted[first][inner], [len(offsets)] if length else []))
    positions, tokens = positions.astype(np.int64), tokens.astype(np.int64)
    return Edges(*_with_edges_in_gaps(positions, tokens, max_gap))


def _with_edges_in_gaps(
    positions: IntArray, tokens: IntArray, max_gap: int
) -> tuple[IntArray, IntArray]:
    gaps = np.flatnonzero(np.diff(positions) > max_gap)
    if not len(gaps):
        return positions, tokens
    extra = [np.arange(positions[k] + max_gap, positions[k + 1], max_gap) for k in gaps]
    at = np.repeat(gaps + 1, [len(more) for more in extra])
    return np.insert(positions, at, np.concatenate(extra)), np.insert(tokens, at, tokens[at])


@dataclass(frozen=True, slots=True)
class Breaks:
    """Indices of the edges at which a text falls into parts, each array rising.

    Sections begin with a heading. What is better kept whole has neither paragraphs nor
    sentences inside. Only a word begins right after a heading.
    """

    sections: IntArray
    paragraphs: IntArray
    sentences: IntArray
    lines: IntArray
    words: IntArray


def find_breaks(text: str, edges: Edges, structure: Structure) -> Breaks:
    """Return the edges at which sections, paragraphs, sentences, lines and words of `text`
    begin; a character of a script without spaces counts as a word."""
    lines = _ranges([match.span() for match in _LINE_END.finditer(text)])
    heads = _ranges([heading.span for heading in structure.headings])
    # A heading's own line end is the one that its lines end with, or begins before that.
    lines = lines[~_holding(lines, heads[:, 1])]
    blank = np.array([text.count("\n", *line) > 1 for line in lines.tolist()], bool)
    opens = _holding(lines, heads[:, 0])
    whole = _ranges([_stripped(text, span) for span in structure.whole])
    sentences = _ranges(sentence_spans(text))
    gaps = np.stack([sentences[:-1, 1], sentences[1:, 0]], axis=1)
    gaps = gaps[~_holding(gaps, heads[:, 1])]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    space = np.isin(codes, _WHITE_SPACE)
    inner = edges.positions[1:-1]
    begins = space[inner - 1] | space[inner]
    for first, last in _IDEOGRAPHIC:
        begins |= (codes[inner] >= first) & (codes[inner] <= last)
    return Breaks(
        sections=edges.within(*lines[opens].T),
        paragraphs=_outside(edges.within(*lines[blank].T), edges, whole),
        sentences=_outside(edges.within(*gaps.T), edges, whole),
        lines=edges.within(*lines.T),
        words=np.flatnonzero(begins) + 1,
    )


def _holding(ranges: IntArray, places: IntArray) -> npt.NDArray[np.bool_]:
    """Return which of the rising ranges (start, end] hold one of the rising places."""
    last = np.searchsorted(places, ranges[:, 1], side="right")
    return np.searchsorted(places, ranges[:, 0], side="right") < last


def _outside(found: IntArray, edges: Edges, whole: IntArray) -> IntArray:
    """Return those of the edges that lie inside none of the rising, disjoint ranges."""
    if not len(whole):
        return found
    places = edges.positions[found]
    nearest = np.searchsorted(whole[:, 0], places) - 1
    outside: npt.NDArray[np.bool_] = (nearest < 0) | (places >= whole[nearest, 1])
    return found[outside]


def _stripped(text: str, span: Span) -> tuple[int, int]:
    piece = text[slice(*span)]
    return span.end - len(piece.lstrip()), span.start + len(piece.rstrip())


def _ranges(spans: Sequence[tuple[int, int]]) -> IntArray:
    return np.array(spans, np.int64).reshape(-1, 2)
