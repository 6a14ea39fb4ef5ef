"""Standard output and error as people's terminals or as scripts' pipes.

Colours, live output and wrapping are for terminals only; in a pipe every fact
stands on one line of its own, so that it can be searched.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 100_000
"""Columns of a pipe: so many that no line is wrapped or cut."""


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error.

    It reads no markup and marks nothing by itself: what it prints is other
    people's text.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object as one line, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201


def as_json(message: Message) -> dict[str, Any]:
    """Return a message in Protobuf's JSON form, with the contract's field names and
    with fields that hold their default."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table without lines, which can be searched and cut.

    A column whose name begins with ">" is aligned to the right.
    """
    result = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title,
        title_justify="left",
    )  # fmt: skip
    for column in columns:
        right = column.startswith(">")
        result.add_column(column.lstrip(">"), justify="right" if right else "left")
    return result


def seconds(value: float) -> str:
    """Return a duration as people read it: "850 ms" or "3.24 s"."""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def day(moment: Timestamp) -> str:
    """Return a moment as UTC text to the second."""
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")


_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Return text without control characters: what others wrote must not steer
    this terminal."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


class Wrapped:
    """Text that comes in pieces, wrapped between words where a terminal ends."""

    MAX_WIDTH = 100
    """Columns beyond which lines are hard to read."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._width = min(out.width, self.MAX_WIDTH) if out.is_terminal else _PIPE_WIDTH
        self._column = 0
        self._waiting = ""
        self._marked = False

    def write(self, text: str) -> None:
        """Print what is certain of the text so far: all but its last word."""
        if self._marked and text:
            # A mark runs into the next word where the text has no space there.
            text = text if (self._waiting or text)[0].isspace() else f" {text}"
            self._marked = False
        *words, self._waiting = re.split(r"(?<=\s)(?=\S)", self._waiting + shown(text))
        for word in words:
            self._print(word)

    def mark(self, mark: str) -> None:
        """Print a mark right after the text so far; it is no part of the text."""
        word = self._waiting.rstrip()
        space = self._waiting[len(word) :]
        self._print(f"{word} {mark}" if word or self._column else mark)
        self._waiting, self._marked = space, True

    def close(self) -> None:
        """Print what was kept back, and end the line."""
        self._print(self._waiting.rstrip())
        self._waiting = ""
        if self._column:
            self._out.file.write("\n")
            self._column = 0
        self._out.file.flush()

    def _print(self, word: str) -> None:
        """Print a word with the white space after it."""
        ink = len(word.rstrip())
        if self._column and ink and self._column + ink > self._width:
            self._out.file.write("\n")
            self._column = 0
        self._out.file.write(word)
        self._out.file.flush()
        if "\n" in word:
            self._column = 0
        self._column += len(word.rpartition("\n")[2])
