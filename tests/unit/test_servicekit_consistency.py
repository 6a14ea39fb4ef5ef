"""Consistency tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_servicekit.consistency import (
    LAST,
    MAX_TOKEN_CHARS,
    Epoch,
    decode_token,
    encode_token,
)
from quintet_servicekit.errors import Reason, ServiceError

NUMBERS = st.integers(0, LAST)


@given(NUMBERS, NUMBERS)
def test_a_token_leads_back_to_its_epoch(collection: int, number: int) -> None:
    token = encode_token("notes", Epoch(collection, number))
    assert len(token) <= MAX_TOKEN_CHARS
    assert decode_token("notes", token) == Epoch(collection, number)


def test_a_token_of_another_collection_is_refused() -> None:
    token = encode_token("notes", Epoch(3, 7))
    with pytest.raises(ServiceError) as caught:
        decode_token("mails", token)
    assert caught.value.reason is Reason.INVALID_FIELD


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        decode_token("notes", text)
    assert caught.value.reason is Reason.INVALID_FIELD


def test_a_text_longer_than_any_token_is_refused_unread() -> None:
    token = encode_token("notes", Epoch(3, 7))
    with pytest.raises(ServiceError) as caught:
        decode_token("notes", token + "=" * MAX_TOKEN_CHARS)
    assert caught.value.reason is Reason.INVALID_FIELD


def test_a_damaged_token_is_refused() -> None:
    token = encode_token("notes", Epoch(3, 7))
    for place in range(len(token) - 1):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(ServiceError):
            decode_token("notes", token[:place] + other + token[place + 1 :])


def test_a_collection_made_anew_is_newer_than_its_predecessor() -> None:
    assert Epoch(4, 0) > Epoch(3, LAST) > Epoch(3, 9) > Epoch(3, 8)
