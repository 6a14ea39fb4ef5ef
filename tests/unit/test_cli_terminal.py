from __future__ import annotations

import io

import pytest
from rich.console import Console

from quintet_cli.terminal import age, seconds, shown, table


def test_control_characters_of_others_are_not_shown() -> None:
    told = shown("a\x1b[2Jb\x9bc\u202ed\te\r\nf")
    assert told == "a\ufffd[2Jb\ufffdc\ufffdd\te\nf"


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 ms"), (0.0123, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (12.345, "12.35 s")],
)
def test_durations_are_told_in_fitting_units(value: float, told: str) -> None:
    assert seconds(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-0.5, "less than 1 s"),
        (0.9, "less than 1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (47 * 3_600, "47 h"),
        (49 * 3_600, "2 days"),
    ],
)
def test_ages_are_told_in_their_largest_whole_unit(value: float, told: str) -> None:
    assert age(value) == told


@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_of_tables_end_with_their_last_character(is_terminal: bool) -> None:
    rows = table("name", "what", title="All of it")
    rows.add_row("a", "b")
    rows.add_row("long name", "x y  ")
    rows.add_row("c", "")
    stream = io.StringIO()
    Console(file=stream, width=60, force_terminal=is_terminal, color_system=None).print(rows)
    lines = ["All of it", "name       what", "a          b", "long name  x y", "c"]
    assert stream.getvalue().splitlines() == lines
