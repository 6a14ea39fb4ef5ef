"""Reads where a Markdown text has headings, and which of its blocks are better kept whole.

Block structure only, by markdown-it-py: what stands inside a line is not looked at. Plain
text is a case of Markdown, of paragraphs alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markdown_it import MarkdownIt
from markdown_it.token import Token

from quintet_tokenizer.models import Heading, Span

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n.*?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX_FRONT_MATTER = 20_000
"""Characters within which front matter must end, to be taken for one."""

_WHOLE = frozenset({"fence", "code_block", "html_block", "table_open", "list_item_open"})

_MAX_TITLE_CHARS = 200
"""Characters of a heading that are kept: each chunk below it repeats them."""

_PIECE_LINES = 4_000
_MOST_PIECE_LINES = 64_000
"""Lines that are parsed at once, and those of them that may be one block: a line of a
table or a list becomes some 4 KB of tokens."""

# Reference definitions would vanish from the structure; they are text like any other.
_MARKDOWN = MarkdownIt("commonmark").enable("table").disable("reference")


@dataclass(frozen=True, slots=True)
class Structure:
    """The headings of a text, and its blocks that are better kept whole (code, tables,
    items of lists, front matter): whole lines, none inside another, each by its start."""

    headings: Sequence[Heading] = ()
    whole: Sequence[Span] = ()


PLAIN = Structure()
"""The structure of a text that has none."""


def read_structure(text: str) -> Structure:
    """Return the structure of a Markdown text, in time linear in its length."""
    headings: list[Heading] = []
    whole: list[Span] = []
    front = _FRONT_MATTER.match(text, 0, _MAX_FRONT_MATTER)
    if front:
        whole.append(Span(*front.span()))
    begin = front.end() if front else 0
    lines = text[begin:].split("\n")
    starts = [*accumulate((len(line) + 1 for line in lines[:-1]), initial=begin), len(text)]
    for first, tokens in _pieces(lines):
        for at, token in enumerate(tokens):
            if token.map is None:
                continue
            span = Span(starts[first + token.map[0]], starts[first + token.map[1]])
            if token.type == "heading_open":
                title = tokens[at + 1].content.strip()[:_MAX_TITLE_CHARS]
                headings.append(Heading(span, int(token.tag[1:]), title))
            elif token.type in _WHOLE and span.start >= (whole[-1].end if whole else 0):
                whole.append(span)
    return Structure(headings, whole)


def _pieces(lines: Sequence[str]) -> Iterator[tuple[int, Sequence[Token]]]:
    """Yield the tokens of some lines at a time, and the first of these lines.

    A piece's last block may go on in the next one: it is left to that one. A piece of a
    single block is made longer.
    """
    first, size = 0, _PIECE_LINES
    while first < len(lines):
        piece = lines[first : first + size]
        tokens: list[Token] = []
        # A closing fence is none if a carriage return follows it, nor is a heading one if a
        # byte order mark goes before it. Lines stay what they are.
        source = "\n".join(piece).replace("\r", "").replace("\ufeff", "")
        _MARKDOWN.block.parse(source, _MARKDOWN, {}, tokens)
        tops = [at for at, it in enumerate(tokens) if it.level == 0 and it.map]
        is_last = first + size >= len(lines)
        if not is_last and len(tops) < 2 and size < _MOST_PIECE_LINES:
            size *= 2
        elif is_last or len(tops) < 2:
            yield first, tokens
            first += size
        else:
            yield first, tokens[: tops[-1]]
            first, size = first + _line_of(tokens[tops[-1]]), _PIECE_LINES


def _line_of(token: Token) -> int:
    assert token.map is not None
    return token.map[0]


class Headings:
    """Looks up which headings a place of a text stands under."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._starts = [heading.span.start for heading in headings]
        self._paths: list[tuple[Heading, ...]] = []
        path: tuple[Heading, ...] = ()
        for heading in headings:
            path = (*(it for it in path if it.level < heading.level), heading)
            self._paths.append(path)

    def above(self, place: int) -> tuple[str, ...]:
        """Return the titles of the headings that begin before `place` and whose sections
        it is in, outermost first; those without words are left out."""
        index = bisect_left(self._starts, place) - 1
        return tuple(it.title for it in self._paths[index] if it.title) if index >= 0 else ()
