"""What is read of a Markdown text's structure, and how chunks follow it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_tokenizer_windows import tokens_of

from quintet_tokenizer import structure
from quintet_tokenizer.models import Span
from quintet_tokenizer.structure import Headings, read_structure
from quintet_tokenizer.windows import windows

GUIDE = """\
# Guide

Before all.

## Install

Get it. Put it there.

```sh
install one

install two
```

### Linux

- apt it
- or build it

## Use

| key | does |
|-----|------|
| q   | ends |
"""

BLOCKS = st.lists(
    st.sampled_from(
        [
            *("# A\n", "## B\n\n", "text. more\n", "\n", "- item\n", "  - sub\n", "```\n", "> q\n"),
            *("| a |\n|---|\n| 1 |\n", "B\n===\n", "    code\n", "---\n", "é漢\r\n", "#\n", "\t"),
        ]
    ),
    max_size=40,
).map("".join)


def cut(text: str, max_tokens: int, overlap: int = 0) -> list[str]:
    spans = windows(
        text,
        tokens_of(text),
        max_tokens=max_tokens,
        overlap=overlap,
        max_chars=10_000,
        structure=read_structure(text),
    )
    return [text[start:end] for start, end in spans]


def test_headings_are_found_with_their_levels_and_lines() -> None:
    found = read_structure(GUIDE + "\nLast\n====\n").headings
    assert [(it.level, it.title) for it in found] == [
        (1, "Guide"),
        (2, "Install"),
        (3, "Linux"),
        (2, "Use"),
        (1, "Last"),
    ]
    assert GUIDE[slice(*found[1].span)] == "## Install\n"


def test_code_tables_and_items_of_lists_are_whole() -> None:
    pieces = [GUIDE[slice(*span)].strip() for span in read_structure(GUIDE).whole]
    assert [piece.partition("\n")[0] for piece in pieces] == [
        "```sh",
        "- apt it",
        "- or build it",
        "| key | does |",
    ]


def test_a_place_stands_under_the_headings_before_it() -> None:
    headings = Headings(read_structure(GUIDE).headings)
    assert headings.above(0) == ()
    assert headings.above(GUIDE.index("## Install")) == ("Guide",)
    assert headings.above(GUIDE.index("or build")) == ("Guide", "Install", "Linux")
    assert headings.above(GUIDE.index("| q")) == ("Guide", "Use")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_front_matter_is_no_heading(mark: str, line_end: str) -> None:
    text = mark + "---\ntitle: a\n---\n# A\n".replace("\n", line_end)
    found = read_structure(text)
    assert [it.title for it in found.headings] == ["A"]
    assert found.whole == [Span(0, text.index("#"))]


def test_a_comment_in_code_is_no_heading() -> None:
    assert not read_structure("```sh\n# not one\n```\r\n\n    # nor this\n").headings


def test_a_fence_closes_before_a_carriage_return() -> None:
    assert [it.title for it in read_structure("```\r\nx\r\n```\r\n# A\r\n").headings] == ["A"]


def test_a_heading_after_a_byte_order_mark_is_one() -> None:
    (heading,) = read_structure("\ufeff# A\nText.\n").headings
    assert (heading.title, heading.span) == ("A", Span(0, 5))


def test_a_long_heading_is_kept_in_part() -> None:
    assert len(read_structure("# " + "x" * 10_000).headings[0].title) == 200


@given(BLOCKS)
def test_a_text_that_is_read_in_pieces_has_the_same_structure(text: str) -> None:
    whole = read_structure(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "_PIECE_LINES", 3)
        assert read_structure(text) == whole


@given(BLOCKS)
def test_blocks_lie_in_order_inside_the_text(text: str) -> None:
    found = read_structure(text)
    ends = 0
    for span in found.whole:
        assert ends <= span.start < span.end <= len(text)
        ends = span.end
    assert all(text[: it.span.start].endswith("\n") or not it.span.start for it in found.headings)


@given(BLOCKS, st.integers(4, 20))
def test_chunks_hold_all_of_a_structured_text(text: str, max_tokens: int) -> None:
    missed = "".join("".join(cut(text, max_tokens)).split())
    if len(tokens_of(text)):
        assert missed == "".join(text.split())


def test_a_chunk_ends_before_a_heading() -> None:
    assert cut("# A\n\none two three four\n\n# B\n\nfive six", 20) == [
        "# A\n\none two three four",
        "# B\n\nfive six",
    ]


def test_small_sections_share_a_chunk() -> None:
    assert cut("# A\n\none\n\n# B\n\ntwo\n\n# C\n\nsix", 40) == [
        "# A\n\none\n\n# B\n\ntwo\n\n# C\n\nsix"
    ]


def test_no_chunk_ends_with_a_heading() -> None:
    text = "aaa bbb ccc ddd eee fff\n\n# Head\n\nggg hhh iii jjj"
    assert cut(text, 9) == ["aaa bbb ccc ddd eee fff", "# Head\n\nggg hhh iii jjj"]
    assert not any(piece.endswith("Head") for size in range(6, 14) for piece in cut(text, size))


def test_code_is_cut_at_its_lines() -> None:
    pieces = cut("```\nif a. B\n\nif c. D\nif e. F\n```", 8)
    assert all(
        "\n" + piece + "\n" in "\n```\nif a. B\n\nif c. D\nif e. F\n```\n" for piece in pieces
    )


def test_a_heading_begins_without_what_was_before_it() -> None:
    pieces = cut("one two three four five six\n\n# B\n\nseven eight nine ten", 9, overlap=4)
    assert pieces[1].startswith("# B")


@pytest.mark.parametrize(
    "line",
    ["# a\n", "- a\n", "> " * 50 + "\n", "```\n", "|a|b|\n", "a\n", "| a |\n|---|\n", "a\n=\n"],
)
def test_reading_takes_time_linear_in_the_text(line: str) -> None:
    def seconds(text: str) -> float:
        began = time.process_time()
        read_structure(text)
        return time.process_time() - began

    short = min(seconds(line * 4_000) for _ in range(3))
    assert min(seconds(line * 16_000) for _ in range(2)) < 4 * 6 * max(short, 0.005)
