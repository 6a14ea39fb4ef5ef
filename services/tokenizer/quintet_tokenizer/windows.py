"""Cuts a text into overlapping windows of tokens, at natural ends where it can.

A pure function over a text, its tokens' offsets and its structure. A window ends before
the first heading behind its first quarter. Without one there, its end is the last end of
a paragraph in its last half, else of a sentence there, else of a line there, else the
last end of a word anywhere, else of a grapheme cluster, else of a token.
"""

from __future__ import annotations

import numpy as np

from quintet_tokenizer.edges import find_breaks, token_edges
from quintet_tokenizer.graphemes import splits_grapheme
from quintet_tokenizer.models import IntArray, Span
from quintet_tokenizer.structure import PLAIN, Structure

_LEAST_SECTION = 4
"""A section of less than this part of a window shares its window with the next one."""


def windows(
    text: str,
    offsets: IntArray,
    *,
    max_tokens: int,
    overlap: int,
    max_chars: int,
    structure: Structure = PLAIN,
) -> list[Span]:
    """Return windows over `text`, by their start, in time linear in its length.

    `offsets`, int64 [tokens, 2], are the tokens' places in code points. Together the
    windows hold every character that is not white space; none begins or ends with
    white space, and each ends after the one before. A window holds at most `max_tokens`
    of those tokens and `max_chars` characters, but at least what stands between two
    edges (see `edges`). It shares at most `overlap` tokens with the one before it, and
    less than half of that one's, in whole words, but none where it begins with a
    heading. A text without tokens has no windows.
    """
    if not len(offsets):
        return []
    return _Cutter(text, offsets, max_tokens, overlap, max_chars, structure).spans()


class _Cutter:
    """Edges are meant by their index everywhere below."""

    def __init__(
        self,
        text: str,
        offsets: IntArray,
        max_tokens: int,
        overlap: int,
        max_chars: int,
        structure: Structure,
    ) -> None:
        self._text = text
        self._edges = token_edges(offsets, len(text), max_chars)
        self._breaks = find_breaks(text, self._edges, structure)
        self._max_tokens = max_tokens
        self._overlap = overlap
        self._max_chars = max_chars

    def spans(self) -> list[Span]:
        """Return the windows."""
        spans: list[Span] = []
        start = covered = 0
        last = len(self._edges.positions) - 1
        while covered < last:
            reach = self._reach(start)
            if reach <= covered:
                # The shared tokens leave no room for the next one: share none.
                start = covered
                reach = self._reach(start)
            end = self._section_end(start, covered, reach)
            if end is None:
                end = last if reach == last else self._end(start, covered, reach)
            span = self._stripped(start, end)
            if span.end > (spans[-1].end if spans else span.start):
                spans.append(span)
            covered = end
            start = self._next_start(start, end)
        return spans

    def _reach(self, start: int) -> int:
        """Return the furthest end of a window from `start`, beyond it."""
        positions, tokens = self._edges.positions, self._edges.tokens
        by_tokens = np.searchsorted(tokens, tokens[start] + self._max_tokens, side="right") - 1
        by_chars = np.searchsorted(positions, positions[start] + self._max_chars, side="right") - 1
        return max(start + 1, int(min(by_tokens, by_chars)))

    def _section_end(self, start: int, covered: int, reach: int) -> int | None:
        tokens, sections = self._edges.tokens, self._breaks.sections
        filled = np.searchsorted(tokens, tokens[start] + self._max_tokens // _LEAST_SECTION)
        first = int(np.searchsorted(sections, max(covered + 1, int(filled))))
        if first < len(sections) and sections[first] <= reach:
            return int(sections[first])
        return None

    def _end(self, start: int, covered: int, reach: int) -> int:
        """Return the best end of a window: after `covered`, at most `reach`."""
        tokens, breaks = self._edges.tokens, self._breaks
        least = max(covered, start) + 1
        half = (tokens[start] + tokens[reach] + 1) // 2
        half_full = max(least, int(np.searchsorted(tokens, half)))
        for ends, first in (
            (breaks.paragraphs, half_full),
            (breaks.sentences, half_full),
            (breaks.lines, half_full),
            (breaks.words, least),
        ):
            last = int(np.searchsorted(ends, reach, side="right")) - 1
            if last >= 0 and ends[last] >= first:
                return int(ends[last])
        candidates = range(reach, covered, -1)
        return next((edge for edge in candidates if self._is_whole(edge, start)), reach)

    def _next_start(self, start: int, end: int) -> int:
        """Return where the window after [start, end) begins: after `start`, at most `end`."""
        tokens, sections = self._edges.tokens, self._breaks.sections
        if end in sections:
            return end
        shared = min(self._overlap, int(tokens[end] - tokens[start] - 1) // 2)
        if shared <= 0:
            return end
        least = max(start + 1, int(np.searchsorted(tokens, tokens[end] - shared)))
        words = self._breaks.words
        word = int(np.searchsorted(words, least))
        return int(words[word]) if word < len(words) and words[word] < end else end

    def _is_whole(self, edge: int, start: int) -> bool:
        """Return whether an inner edge of a window from `start` cuts no grapheme cluster."""
        positions = self._edges.positions
        return not splits_grapheme(self._text, int(positions[edge]), int(positions[start]))

    def _stripped(self, start: int, end: int) -> Span:
        begin, stop = int(self._edges.positions[start]), int(self._edges.positions[end])
        piece = self._text[begin:stop]
        return Span(
            stop - len(piece.lstrip()) if piece.strip() else begin, begin + len(piece.rstrip())
        )
