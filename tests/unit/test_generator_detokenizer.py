"""Text from tokens, as they come."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer, decoders, models

from quintet_generator.detokenizer import REPLACEMENT, IncrementalDetokenizer


def bytes_of(tokens: Sequence[int]) -> str:
    """A tokenizer whose every token is a byte."""
    return bytes(tokens).decode("utf-8", errors="replace")


def pushed(tokens: Sequence[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(bytes_of)
    return [*(detokenizer.push(it) for it in tokens), detokenizer.flush()]


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語", "🙂🏳️‍🌈", "e\u0301", " a  b\n"])
def test_the_pieces_join_up_to_the_whole(text: str) -> None:
    assert "".join(pushed(text.encode())) == text


def test_no_piece_holds_a_broken_character() -> None:
    pieces = pushed("a🙂日é".encode())
    assert all(REPLACEMENT not in it for it in pieces)
    assert [it for it in pieces if it] == ["a", "🙂", "日", "é"]


def test_a_character_cut_off_at_the_end_is_dropped() -> None:
    assert "".join(pushed("ok 🙂".encode()[:-1])) == "ok "


def test_bytes_that_are_no_character_do_not_hold_up_what_follows() -> None:
    assert "".join(pushed(b"a\xff b")).endswith(" b")


def test_spaces_of_sentencepiece_survive_token_borders() -> None:
    vocabulary = {"▁Hello": 0, "▁wor": 1, "ld": 2, "!": 3}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Metaspace()
    detokenizer = IncrementalDetokenizer(lambda tokens: tokenizer.decode(list(tokens)))
    pieces = [detokenizer.push(it) for it in (0, 1, 2, 3)]
    assert pieces == ["Hello", " wor", "ld", "!"]
    assert detokenizer.flush() == ""
