"""Text that streams into a terminal, wrapped between words."""

from __future__ import annotations

import itertools
import re

from rich.console import Console

from quintet_cli.terminal import PIPE_WIDTH, shown

_BEGINS_LINE = re.compile(r"([-*+•]|#+|\d+[.)])(\s|$)|>|\||```")
"""What begins a list item, a heading, a quotation, a table row or code."""


def _words(text: str) -> list[str]:
    """Return the words of a text, each with the white space after it; at least one."""
    return re.split(r"(?<=\s)(?=\S)", text)


class Wrapped:
    """Text that comes in pieces, wrapped between words where a terminal ends.

    A single line break within a paragraph is taken for a space: quotations bring
    the line breaks of their document's own width. Lists, indented lines and
    fenced code keep theirs.
    """

    MAX_WIDTH = 100
    """Columns beyond which lines are hard to read."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._width = min(out.width, self.MAX_WIDTH) if out.is_terminal else PIPE_WIDTH
        self._column = 0
        self._waiting = ""
        self._marked = False
        self._fenced = False

    def write(self, text: str) -> None:
        """Print what is certain of the text so far: all but its last word."""
        if self._marked and text:
            # A mark runs into the next word where the text has no space there.
            text = text if (self._waiting or text)[0].isspace() else f" {text}"
            self._marked = False
        words = _words(self._waiting + shown(text))
        # Whether a line break stays is told by the whole word after it.
        kept = 2 if len(words) > 1 and words[-2].endswith("\n") else 1
        for word, following in list(itertools.pairwise(words))[: len(words) - kept]:
            self._print(self._reflowed(word, following))
        self._waiting = "".join(words[-kept:])

    def _reflowed(self, word: str, following: str) -> str:
        self._fenced ^= "```" in word
        ink = word.rstrip()
        is_break = word[len(ink) :].strip(" ") == "\n" and word.endswith("\n")
        if not is_break or self._fenced or ink.endswith("```") or _BEGINS_LINE.match(following):
            return word
        return f"{ink} "

    def mark(self, mark: str) -> None:
        """Print a mark right after the text so far; it is no part of the text."""
        last = self._print_all_but_last()
        word = last.rstrip()
        if word or self._column:
            self._make_room(len(word) + 1 + len(mark))
            self._print(f"{word} ")
        self._out.print(mark, style="cyan", end="")
        self._column += len(mark)
        self._waiting, self._marked = last[len(word) :], True

    def close(self) -> None:
        """Print what was kept back, and end the line."""
        self._print(self._print_all_but_last().rstrip())
        self._waiting = ""
        if self._column:
            self._out.file.write("\n")
            self._column = 0
        self._out.file.flush()

    def _print_all_but_last(self) -> str:
        words = _words(self._waiting)
        for word, following in itertools.pairwise(words):
            self._print(self._reflowed(word, following))
        return words[-1]

    def _print(self, word: str) -> None:
        """Print a word with the white space after it."""
        self._make_room(len(word.rstrip()))
        self._out.file.write(word)
        self._out.file.flush()
        if "\n" in word:
            self._column = 0
        self._column += len(word.rpartition("\n")[2])

    def _make_room(self, length: int) -> None:
        if self._column and length and self._column + length > self._width:
            self._out.file.write("\n")
            self._column = 0
