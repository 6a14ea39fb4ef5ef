from __future__ import annotations

import io
import itertools
import re

import pytest
from rich.console import Console

from quintet_cli.wrapping import Wrapped


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


@pytest.mark.parametrize("cut", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a sentence\nthat goes on\n\nnext", "a sentence that goes on\n\nnext\n"),
        ("list:\n- one\n- two\n1. three\nmore", "list:\n- one\n- two\n1. three more\n"),
        ("called a\n*coroutine*\n# Head\n", "called a *coroutine*\n# Head\n"),
        ("so:\n    indented\n", "so:\n    indented\n"),
        ("```\na = 1\nb = 2\n```\nafter\nit", "```\na = 1\nb = 2\n```\nafter it\n"),
    ],
)
def test_single_line_breaks_of_paragraphs_are_spaces(text: str, told: str, cut: int) -> None:
    stream, console = _terminal(80)
    writer = Wrapped(console)
    for start in range(0, len(text), cut):
        writer.write(text[start : start + cut])
    writer.close()
    assert stream.getvalue() == told


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
    shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert shown == "First. [1] [2] Second. [3] Third\n"


def test_a_mark_stays_with_its_word() -> None:
    stream = io.StringIO()
    writer = Wrapped(Console(file=stream, width=12, force_terminal=True, color_system=None))
    writer.write("One two three.")
    writer.mark("[1]")
    writer.write(" Four.")
    writer.close()
    assert stream.getvalue().splitlines() == ["One two ", "three. [1] ", "Four."]


def test_closing_twice_prints_nothing_more() -> None:
    stream, console = _terminal(80)
    writer = Wrapped(console)
    writer.close()
    writer.write("x")
    writer.close()
    writer.close()
    assert stream.getvalue() == "x\n"
