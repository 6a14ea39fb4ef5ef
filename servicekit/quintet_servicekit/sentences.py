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
    # A stop, closing marks, then space. Possessive, and begun only at a run's first
    # stop: a long line of dots would otherwise take quadratic time.
    (?P<stop>(?<![.!?…])[.!?…]++[)\]"'”’»]*+)(?=\s)
    | (?P<cjk>[。！？]+[」』”’）]*)           # CJK stops need no space
    # a blank line, or the start of a list item, a heading or a table's row
    | (?P<line>\n[^\S\n]*(?:\n\s*|(?=[-*+•‣]\s|\d{1,3}[.)]\s|\#{1,6}\s|\|)))
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"([^\W\d_]+(?:\.[^\W\d_]+)*)$")
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
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        start += len(piece) - len(piece.lstrip())
        spans.append((start, start + len(stripped)))


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match["stop"] != ".":
        # "?" and "!" end one except inside a clause ("Yahoo! is").
        return not _LOWER_START.match(text, match.end())
    if _LOWER_START.match(text, match.end()):
        return False
    # No word that matters is longer than 20 characters; the bound keeps this linear.
    word = _LAST_WORD.search(text[max(0, match.start() - 20) : match.start()])
    if word is None:
        return True
    last = word[1]
    is_initial = len(last) == 1 and last.isupper() and last != "I"
    return not (is_initial or "." in last or last.lower() in _ABBREVIATIONS)
