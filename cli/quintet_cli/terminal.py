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
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table

PIPE_WIDTH = 100_000
"""Columns of a pipe: so many that no line is wrapped or cut."""


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error.

    It reads no markup and marks nothing by itself: what it prints is other
    people's text.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
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


class _Trimmed(Table):
    """A table whose lines end with their last character."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its segments, without what would only fill the last column."""
        rendered = super().__rich_console__(console, options)
        for line in Segment.split_lines(it for it in rendered if isinstance(it, Segment)):
            while line and not line[-1].text.strip(" "):
                line.pop()
            if line:
                text, style, control = line.pop()
                yield from line
                yield Segment(text.rstrip(" "), style, control)
            yield Segment.line()


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table without lines, which can be searched and cut.

    A column whose name begins with ">" is aligned to the right.
    """
    result = _Trimmed(
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


def age(value: float) -> str:
    """Return how long something has been there as people read it: "12 s", "3 min",
    "5 h" or "2 days", rounded down; `value` in seconds."""
    if value < 1:
        return "less than 1 s"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if value >= length * (2 if unit == "days" else 1):
            return f"{int(value // length)} {unit}"
    return f"{int(value)} s"


def day(moment: Timestamp) -> str:
    """Return a moment as UTC text to the second."""
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")


_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Return text without control characters: what others wrote must not steer
    this terminal."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return text as `shown` does, with each stretch of white space as one space."""
    return " ".join(shown(text).split())
