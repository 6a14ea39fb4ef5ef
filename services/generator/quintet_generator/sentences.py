"""Splits a text into sentences, as stretches of it.

Made for what ends up in a corpus: prose with hard line breaks, headings, lists,
tables and code. Prose is cut at sentence ends, a list item begins a new sentence,
a block of code stays together. Abbreviations are English; a capital, a digit or a
quotation mark begins a sentence. Every step takes linear time, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SENTENCE_CHARS = 1_000
"""Longest sentence. What runs on (a table, minified data) is cut at white space;
real sentences of that length are rare enough to lose."""

_LOOKED_AT_CHARS = 200
"""How much of a line tells what it is: bounds the patterns that try each position."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text; no white space at either end."""

    start: int
    end: int


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_RULE = re.compile(r"[\s=\-*~^_#|+:]+")
_HEADING = re.compile(r"#{1,6}[ \t]")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+\S")
_CODE_LINE = re.compile(
    r"""\s*(?:>>>\s|\.\.\.\s|\$\s|@\w|//|/\*|\#include|import\s\w|from\s\S+\simport\s)
    |\s*(?:def|class|for|while|if|elif|try|else|except|with)\b.*:\s*(?:\#.*)?$
    |.*[{};=]\s*$
    |.*\w\(.*\)\s*;?\s*$
    |.*\s(?::?=|::=|->|==)\s""",
    re.VERBOSE,
)

_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?:\[\d{1,3}\])*+(?=\s)|[。！？]++[」』”]?""",
)
_WORD_BEFORE_CHARS = 20
_WORD_BEFORE = re.compile(r"[\w.&'’-]*$")
_INITIAL = re.compile(r"(?:[A-Z]\.)*[A-Z]")
_NEXT_WORD = re.compile(r"\s*+([\"'“‘«(\[]*+)(\w*)")

_BEFORE_A_NAME = frozenset(
    """mr mrs ms dr prof gen col lt sgt capt cmdr adm maj rev hon gov sen rep pres st mt ft
    vs v e.g i.e eg ie cf viz fig figs eq eqs sec ch art vol pp p approx ca""".split()
)
"""Abbreviations that never end a sentence."""
_ABBREVIATIONS = frozenset(
    """etc al no nos ed eds dept univ inc ltd co corp bros est jr sr jan feb mar apr jun jul
    aug sep sept oct nov dec mon tue wed thu fri sat sun a.m p.m ph.d b.a m.a b.sc m.sc ave
    blvd rd""".split()
)
"""Abbreviations that may end one; so may initials ("the U.S.", "World War I.")."""
_STARTERS = frozenset(
    """the a an this that these those it its he she his her they their we our you i in on at
    as by for from with after before during when while if although though since because
    however but and or so thus therefore there here some many most several both each all one
    two another such other under to no not what who where why how""".split()
)
"""Capitalised, these words begin a sentence rather than continue a name."""


def split(text: str) -> list[Span]:
    """Return the text's sentences in order; they don't overlap."""
    return [
        span
        for unit in _units(text)
        for sentence in _sentences(text, unit)
        for span in _bounded(text, sentence)
    ]


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    is_prose: bool


def _units(text: str) -> Iterator[_Unit]:
    """Yield paragraphs, list items, headings and blocks of code."""
    block: list[Span] = []
    fenced = False
    for match in _LINE.finditer(text):
        line = match.group()
        if _FENCE.match(line):
            yield from _units_of_block(text, block, fenced)
            block, fenced = [], not fenced
        elif not fenced and (line.isspace() or _RULE.fullmatch(line)):
            yield from _units_of_block(text, block, fenced)
            block = []
        else:
            block.append(Span(match.start(), match.end()))
    yield from _units_of_block(text, block, fenced)


def _units_of_block(text: str, lines: list[Span], fenced: bool) -> Iterator[_Unit]:
    if not lines:
        return
    shown = [text[line.start : min(line.end, line.start + _LOOKED_AT_CHARS)] for line in lines]
    code_lines = sum(bool(_CODE_LINE.match(it)) for it in shown)
    if fenced or 2 * code_lines >= len(lines):
        yield _Unit(lines[0].start, lines[-1].end, is_prose=False)
        return
    start = lines[0].start
    after_heading = False
    for line, it in zip(lines, shown, strict=True):
        if line.start > start and (after_heading or _LIST_ITEM.match(it) or _HEADING.match(it)):
            yield _Unit(start, line.start, is_prose=True)
            start = line.start
        after_heading = bool(_HEADING.match(it))
    yield _Unit(start, lines[-1].end, is_prose=True)


def _sentences(text: str, unit: _Unit) -> Iterator[Span]:
    start = unit.start
    if unit.is_prose:
        for match in _END.finditer(text, unit.start, unit.end):
            if _ends_sentence(text, start, match.start(), match.end(), unit.end):
                yield Span(start, match.end())
                start = match.end()
    yield Span(start, unit.end)


def _ends_sentence(text: str, start: int, mark: int, after: int, unit_end: int) -> bool:
    """Tell whether the mark (full stop, ...) at `mark` ends the sentence from `start`."""
    following = _NEXT_WORD.match(text, after, min(unit_end, after + _LOOKED_AT_CHARS))
    opening, word = following.groups() if following else ("", "")
    if text[mark] in "。！？" or not (opening or word):
        return True
    if word[:1].islower():
        return False
    if text[mark:after] != ".":
        return True
    before = _WORD_BEFORE.search(text[max(start, mark - _WORD_BEFORE_CHARS) : mark])
    last = before.group() if before else ""
    if last.lower() in _BEFORE_A_NAME:
        return False
    if _INITIAL.fullmatch(last) or last.lower() in _ABBREVIATIONS:
        return word.lower() in _STARTERS
    # "1." at the beginning numbers what follows.
    return not (last.isdigit() and not text[start : mark - len(last)].strip())


def _bounded(text: str, span: Span) -> Iterator[Span]:
    """Yield the span without outer white space, in pieces of bounded length."""
    start = span.start
    while start < span.end:
        end = min(span.end, start + MAX_SENTENCE_CHARS)
        if end < span.end:
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = space if space > start else end
        piece = text[start:end]
        left = len(piece) - len(piece.lstrip())
        if piece.strip():
            yield Span(start + left, start + len(piece.rstrip()))
        start = end
