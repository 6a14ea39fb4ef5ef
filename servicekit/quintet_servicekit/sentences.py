"""Splits text into sentences, by rules that hold for most European and CJK text."""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    "dr mr mrs ms prof st jr sr vs etc eg ie cf al fig figs no nos vol pp ed eds dept est inc ltd "
    "co corp approx ca ch sec eq ref refs gen col capt lt sgt rev hon gov sen rep pres jan feb mar "
    "apr jun jul aug sep sept oct nov dec".split()
)
"""Words whose full stop does not end a sentence when a capital or digit follows."""

_BREAK = re.compile(
    r"""
    # One set of characters before anything else: what has none of them is skipped as fast
    # as text can be read. Which one it was, what follows looks back for.
    [.!?…。！？\n]
    (?:
        # A stop, closing marks, then space. Possessive, and begun only at a run's first
        # stop: a long line of dots would otherwise take quadratic time.
        (?P<stop>(?<=[.!?…])(?<![.!?…][.!?…])[.!?…]*+[)\]"'”’»]*+)(?=\s)
        | (?P<cjk>(?<=[。！？])[。！？]*[」』”’）]*)       # CJK stops need no space
        # a blank line, or the start of a list item, a heading or a table's row
        | (?P<line>(?<=\n)[^\S\n]*(?:\n\s*|(?=[-*+•‣]\s|\d{1,3}[.)]\s|\#{1,6}\s|\|)))
    )
    """,
    re.VERBOSE,
)
_LAST_WORD_REVERSED = re.compile(r"\n?([^\W\d_]+(?:\.[^\W\d_]+)*)")
_LOWER_START = re.compile(r"\s+[\"'“‘(\[]*[a-zà-öø-ÿ]")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the sentences of `text` as (start, end) in characters, in order.

    Spans don't overlap, hold no white space at their ends, and together hold every
    character that is not white space. Paragraphs, list items and headings end a
    sentence; a full stop after an abbreviation, an initial or before a small letter
    does not. Linear in the length of the text.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        if match.lastgroup == "stop" and not _ends_sentence(text, match):
            continue
        end = match.start() if match.lastgroup == "line" else match.end()
        _append(spans, text, start, end)
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end].lstrip()
    start = end - len(piece)
    piece = piece.rstrip()
    if piece:
        spans.append((start, start + len(piece)))


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if _LOWER_START.match(text, match.end()):
        # "?" and "!" end a sentence except inside a clause ("Yahoo! is").
        return False
    if match[0] != ".":
        return True
    # No word that matters is longer than 20 characters; the bound keeps this linear. From
    # its end on, where a search from its start would try each character in turn.
    before = text[max(0, match.start() - 20) : match.start()][::-1]
    word = _LAST_WORD_REVERSED.match(before)
    if word is None:
        return True
    last = word[1][::-1]
    is_initial = len(last) == 1 and last.isupper() and last != "I"
    return not (is_initial or "." in last or last.lower() in _ABBREVIATIONS)
