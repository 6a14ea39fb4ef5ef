"""The form of API keys."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from quintet_servicekit.api_key import ApiKey, new_key, parsed


def test_a_key_is_read_as_it_was_made() -> None:
    keys = [new_key() for _ in range(200)]
    assert [parsed(key.text) for key in keys] == keys
    assert len({key.secret for key in keys}) == len({key.id for key in keys}) == 200
    assert {len(key.text) for key in keys} == {65}


KEY = new_key().text


@settings(max_examples=300)
@given(st.integers(0, len(KEY) - 1), st.sampled_from(string.ascii_letters + string.digits + "_- "))
def test_a_key_with_one_wrong_character_is_none(position: int, character: str) -> None:
    text = KEY[:position] + character + KEY[position + 1 :]
    assert (parsed(text) is None) == (text != KEY)


@given(st.integers(0, len(KEY) - 1))
def test_a_key_that_was_cut_off_is_none(length: int) -> None:
    assert parsed(KEY[:length]) is None
    assert parsed(KEY + KEY[:1]) is None


@given(st.text(max_size=80))
def test_other_text_is_no_key(text: str) -> None:
    assert parsed(text) is None


def test_a_key_does_not_show_its_secret() -> None:
    key = new_key()
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"


def test_a_hash_is_of_the_secret_alone_and_does_not_hold_it() -> None:
    key, other = new_key(), new_key()
    assert key.hash() == ApiKey("another", key.secret).hash() != other.hash()
    assert len(key.hash()) == 32
    assert key.secret.encode() not in key.hash()
