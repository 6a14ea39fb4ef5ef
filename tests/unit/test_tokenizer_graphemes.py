"""Cuts inside what a reader takes for one character."""

from __future__ import annotations

import pytest

from quintet_tokenizer.graphemes import splits_grapheme


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",
        "\r\n",
        "👩\u200d👧",
        "👍🏽",
        "❤\ufe0f",
        "🇩🇪",
        "ก็",
        "ᄒ\u1161\u11ab",
        "ｶ\uff9e",
        "🏴\U000e0067\U000e007f",
    ],
)
def test_every_inner_cut_of_a_cluster_splits_it(cluster: str) -> None:
    text = f"a{cluster}{cluster}b"
    inner = [splits_grapheme(text, at, 0) for at in range(1, len(text))]
    within = [True] * (len(cluster) - 1)
    assert inner == [False, *within, False, *within, False]


@pytest.mark.parametrize("text", ["ab", "a b", "漢字", "한국", "שלום", "مرحبا", "\n\r", "a🇩"])
def test_a_cut_between_characters_splits_nothing(text: str) -> None:
    assert not any(splits_grapheme(text, at, 0) for at in range(1, len(text)))


def test_flags_are_paired_from_where_counting_begins() -> None:
    assert splits_grapheme("🇩🇪🇫🇷", 3, 0)
    assert not splits_grapheme("🇩🇪🇫🇷", 3, 1)
