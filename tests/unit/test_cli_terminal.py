from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from quintet_cli.terminal import Wrapped, seconds, shown


def _terminal(width: int) -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, width=width, force_terminal=True)


TEXT = "The quick brown fox  jumps over\n\n    the lazy dog, and then\nrests. "


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_text_is_wrapped_alike_however_it_is_cut_into_pieces(cut: int) -> None:
    stream, console = _terminal(16)
    writer = Wrapped(console)
    letters = iter(TEXT)
    while piece := "".join(itertools.islice(letters, cut)):
        writer.write(piece)
    writer.close()
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
        "The quick brown",
        "fox  jumps over",
        "",
        "    the lazy",
        "dog, and then",
        "rests.",
    ]


def test_a_word_longer_than_the_line_is_not_broken() -> None:
    stream, console = _terminal(10)
    writer = Wrapped(console)
    writer.write("a https://example.org/long b")
    writer.close()
    assert stream.getvalue().split() == ["a", "https://example.org/long", "b"]


def test_a_pipe_gets_the_text_as_it_is() -> None:
    stream = io.StringIO()
    writer = Wrapped(Console(file=stream, width=10))
    writer.write("a line of text that is longer than ten\n  columns")
    writer.close()
    assert stream.getvalue() == "a line of text that is longer than ten\n  columns\n"


def test_marks_stand_right_after_the_word_and_before_the_space() -> None:
    stream, console = _terminal(80)
    writer = Wrapped(console)
    writer.write("First.")
    writer.mark("[1]")
    writer.mark("[2]")
    writer.write(" Second. ")
    writer.mark("[3]")
    writer.write("Third")
    writer.close()
    assert stream.getvalue() == "First. [1] [2] Second. [3] Third\n"


def test_closing_twice_prints_nothing_more() -> None:
    stream, console = _terminal(80)
    writer = Wrapped(console)
    writer.close()
    writer.write("x")
    writer.close()
    writer.close()
    assert stream.getvalue() == "x\n"


def test_control_characters_of_others_are_not_shown() -> None:
    told = shown("a\x1b[2Jb\x9bc\u202ed\te\r\nf")
    assert told == "a\ufffd[2Jb\ufffdc\ufffdd\te\nf"


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 ms"), (0.0123, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (12.345, "12.35 s")],
)
def test_durations_are_told_in_fitting_units(value: float, told: str) -> None:
    assert seconds(value) == told
