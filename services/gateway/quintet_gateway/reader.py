"""Reads passages: what is found in one that is read again is remembered."""

from __future__ import annotations

from sys import getsizeof

from quintet_gateway.instructions import instruction_spans
from quintet_gateway.near_duplicates import Shingles, shingles
from quintet_gateway.passage_text import Spans
from quintet_gateway.remembered import Remembered
from quintet_gateway.support import Sentences, sentences

_SPAN_BYTES = getsizeof((0, 0)) + 8 + 2 * getsizeof(2**29)
"""Two numbers, their pair, and the place of that."""


class Reader:
    """What is found in passages, each in at most a third of `max_bytes` remembered."""

    def __init__(self, max_bytes: int) -> None:
        third = max_bytes // 3
        self.instructions = Remembered(instruction_spans, _spans_size, max_bytes=third)
        self.shingles = Remembered(shingles, _shingles_size, max_bytes=third)
        self.sentences = Remembered(sentences, _sentences_size, max_bytes=third)


def _spans_size(spans: Spans) -> int:
    return getsizeof(()) + len(spans) * _SPAN_BYTES


def _shingles_size(found: Shingles) -> int:
    return getsizeof(found)


def _sentences_size(found: Sentences) -> int:
    words = sum(getsizeof(words) + sum(map(getsizeof, words)) for words in found.words)
    return words + getsizeof(()) * 4 + len(found.spans) * (_SPAN_BYTES + 8)
