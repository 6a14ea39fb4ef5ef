"""Windows over a text, with tokens made by rules that are easy to foresee."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quintet_tokenizer.edges import token_edges
from quintet_tokenizer.models import IntArray, Span
from quintet_tokenizer.windows import windows

_ALPHABET = "ab ABé.。,!\n\t\r🇩🇪👩\u200d👧🏽e\u0301漢字テスト한국שלוםمرحباก็\u200f\u00a0x1"
TEXTS = st.one_of(
    st.text(st.sampled_from(_ALPHABET), max_size=400),
    st.text(max_size=200),
    st.lists(
        st.sampled_from(["One word. ", "Two more words!\n\n", "- item\n", "漢字。", "x" * 40, " "]),
        max_size=40,
    ).map("".join),
)


def tokens_of(text: str) -> IntArray:
    """Tokens of at most three letters, and two tokens for each Hangul syllable; marks
    and joiners are dropped, as lower-casing tokenizers do."""
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"[가-힣]|[^\W]{1,3}|[^\w\s\u0300-\u036f\u200d\u200f]", text):
        spans += [match.span()] * (2 if "가" <= match[0] <= "힣" else 1)
    return np.array(spans, np.int64).reshape(-1, 2)


def cut(text: str, max_tokens: int, overlap: int = 0, max_chars: int = 10_000) -> list[str]:
    spans = windows(
        text, tokens_of(text), max_tokens=max_tokens, overlap=overlap, max_chars=max_chars
    )
    return [text[start:end] for start, end in spans]


def tokens_between(text: str, start: int, end: int) -> int:
    return sum(start <= a and b <= end for a, b in tokens_of(text).tolist())


@given(TEXTS, st.integers(2, 20), st.data())
def test_windows_cover_every_character_that_is_not_white_space(
    text: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, (max_tokens - 1) // 2))
    max_chars = data.draw(st.sampled_from([1, 7, 1_000]))
    offsets = tokens_of(text)
    spans = windows(text, offsets, max_tokens=max_tokens, overlap=overlap, max_chars=max_chars)

    covered = set().union(*(range(*span) for span in spans))
    missed = {at for at, character in enumerate(text) if not character.isspace()} - covered
    assert not missed or not len(offsets)


@given(TEXTS, st.integers(2, 20), st.data())
def test_windows_keep_their_bounds_and_move_on(
    text: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, (max_tokens - 1) // 2))
    spans = windows(text, tokens_of(text), max_tokens=max_tokens, overlap=overlap, max_chars=10_000)

    for start, end in spans:
        assert text[start:end] == text[start:end].strip() != ""
        assert tokens_between(text, start, end) <= max_tokens
    for earlier, later in pairwise(spans):
        assert earlier.start < later.start
        assert earlier.end < later.end
        shared = tokens_between(text, later.start, earlier.end)
        assert shared <= overlap
        assert 2 * shared < max(1, tokens_between(text, *earlier)) or not shared


@given(TEXTS, st.integers(2, 20), st.integers(1, 50))
def test_windows_hold_at_most_max_chars(text: str, max_tokens: int, max_chars: int) -> None:
    spans = windows(text, tokens_of(text), max_tokens=max_tokens, overlap=0, max_chars=max_chars)
    assert all(end - start <= max_chars for start, end in spans)


@given(st.text(max_size=50), st.integers(2, 20))
def test_a_text_that_fits_is_one_window(text: str, max_tokens: int) -> None:
    offsets = tokens_of(text)
    spans = windows(text, offsets, max_tokens=max(2, len(offsets)), overlap=0, max_chars=100)
    expected = [text.strip()] if len(offsets) else []
    assert [text[start:end] for start, end in spans] == expected


def test_a_text_without_tokens_has_no_windows() -> None:
    assert cut("", 8) == cut(" \n\t", 8) == cut("\u200d\u0301", 8) == []


def test_a_window_ends_with_a_paragraph_before_a_sentence() -> None:
    text = "One two. Six ten.\n\nAnd now. For it all."
    assert cut(text, 12)[0] == "One two. Six ten."


def test_a_window_ends_with_a_sentence_before_a_line_or_word() -> None:
    text = "aaa bbb ccc. Ddd\neee fff ggg hhh"
    assert cut(text, 8)[0] == "aaa bbb ccc."


def test_a_window_ends_with_a_line_before_a_word() -> None:
    text = "aaa bbb ccc\nddd eee fff ggg hhh"
    assert cut(text, 5)[0] == "aaa bbb ccc"


def test_a_window_ends_between_words_rather_than_within_one() -> None:
    assert cut("aaa bbb cccdddeee fff", 4)[0] == "aaa bbb"


def test_an_end_in_the_first_half_of_a_window_is_passed_over() -> None:
    assert cut("aaa.\n\nbbb ccc ddd eee fff ggg", 6)[0] == "aaa.\n\nbbb ccc ddd eee"


def test_a_word_that_fills_half_a_window_goes_to_the_next_whole() -> None:
    assert cut("aaa bbbcccdddeee", 4) == ["aaa", "bbbcccdddeee"]


def test_a_chinese_sentence_ends_without_a_space() -> None:
    assert cut("漢字漢。" * 4, 5)[0] == "漢字漢。" * 2


def test_a_word_longer_than_a_window_is_cut_between_its_tokens() -> None:
    assert cut("abc" * 5, 2) == ["abcabc", "abcabc", "abc"]


def test_tokens_of_one_character_are_never_parted() -> None:
    assert cut("한국한국", 5) == ["한국", "한국"]


def test_a_flag_is_not_cut_in_two() -> None:
    assert cut("🇩🇪" * 4, 3) == ["🇩🇪"] * 4


def test_dropped_marks_stay_with_their_letter() -> None:
    assert cut("abc\u0301" * 4, 2) == ["abc\u0301" * 2] * 2


def test_a_cluster_of_more_tokens_than_a_window_is_cut_all_the_same() -> None:
    family = "👩🏽" + "".join(f"\u200d{face}" for face in "👩👧👦👩👧👦")
    assert "".join(cut(family, 2)) == family
    assert len(cut(family, 2)) > 1


def test_neighbours_share_whole_words() -> None:
    assert cut("aaa bbb ccc ddd eee fff", 4, overlap=1) == ["aaa bbb ccc ddd", "ddd eee fff"]


def test_neighbours_share_nothing_where_overlap_is_zero() -> None:
    assert cut("aaa bbb ccc ddd eee", 2) == ["aaa bbb", "ccc ddd", "eee"]


def test_neighbours_share_no_part_of_a_word() -> None:
    assert cut("aaa bbb cccdddeee fff", 5, overlap=2) == ["aaa bbb cccdddeee", "fff"]


def test_chinese_text_is_shared_too() -> None:
    text = "漢" * 20
    spans = windows(text, tokens_of(text), max_tokens=4, overlap=1, max_chars=1_000)
    assert spans == [Span(0, 12), Span(9, 20)]


def test_cutting_takes_time_linear_in_the_length() -> None:
    def seconds(text: str) -> float:
        offsets = tokens_of(text)
        began = time.perf_counter()
        windows(text, offsets, max_tokens=64, overlap=31, max_chars=2_048)
        return time.perf_counter() - began

    for text in ("abc de. ", "x", " ", "\n", ".", "🇩🇪", "\u0301a", "漢"):
        text = text * (50_000 // len(text)) + "a"
        # Quadratic time would be sixteen times as much; a busy machine is not that slow.
        assert seconds(text * 4) < 10 * max(seconds(text), 0.05), repr(text[:8])


def test_edges_part_no_two_tokens_that_share_a_character() -> None:
    offsets = np.array([(1, 3), (1, 3), (3, 5), (4, 6), (7, 8)], np.int64)
    edges = token_edges(offsets, 9, max_gap=100)
    assert edges.positions.tolist() == [0, 3, 7, 9]
    assert edges.tokens.tolist() == [0, 2, 4, 5]


def test_edges_lie_no_further_apart_than_asked() -> None:
    edges = token_edges(np.array([(0, 10), (10, 11)], np.int64), 11, max_gap=4)
    assert edges.positions.tolist() == [0, 4, 8, 10, 11]
    assert edges.tokens.tolist() == [0, 1, 1, 1, 2]
