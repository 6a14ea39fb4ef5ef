"""Page tokens are good for the query they came from, and for nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_retriever.pages import _digest, key_of_token, page_token
from quintet_servicekit.errors import Reason, ServiceError


@given(
    key=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
    query=st.lists(st.text() | st.binary(), max_size=3),
)
def test_a_token_leads_back_to_its_key(key: str, query: list[str | bytes]) -> None:
    assert key_of_token(page_token(key, *query), *query) == key


def test_no_token_is_the_first_page() -> None:
    assert key_of_token("", "documents", "c") == ""


@pytest.mark.parametrize(
    "query", [("documents", "d", b""), ("documents", "c", b"x"), ("documentsc", b""), ()]
)
def test_a_token_of_another_query_is_refused(query: tuple[str | bytes, ...]) -> None:
    token = page_token("key", "documents", "c", b"")
    with pytest.raises(ServiceError) as caught:
        key_of_token(token, *query)
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


@given(position=st.integers(0, 19), character=st.sampled_from("AZaz09-_=é \n"))
def test_a_damaged_token_is_refused(position: int, character: str) -> None:
    token = page_token("key", "documents")
    damaged = token[:position] + character + token[position + 1 :]
    if damaged != token:
        with pytest.raises(ServiceError) as caught:
            key_of_token(damaged, "documents")
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


@pytest.mark.parametrize("token", ["x", "====", "AAAA", "ü"])
def test_rubbish_is_refused(token: str) -> None:
    with pytest.raises(ServiceError):
        key_of_token(token, "documents")


@pytest.mark.parametrize("key", [b"\xff", b"a\0b"])
def test_a_token_that_a_caller_made_up_is_refused_for_a_key_that_no_page_ends_with(
    key: bytes,
) -> None:
    token = base64.urlsafe_b64encode(_digest(key, ("documents",)) + key).decode()
    with pytest.raises(ServiceError) as caught:
        key_of_token(token, "documents")
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
