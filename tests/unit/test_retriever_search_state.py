"""The opaque state of a search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_retriever.filters import Equals
from quintet_retriever.models import Mode, SearchRequest, SearchState, Tuning
from quintet_retriever.search_state import (
    MAX_STATE_BYTES,
    decode_state,
    encode_state,
    request_digest,
)
from quintet_servicekit.consistency import Epoch

DIGEST = b"d" * 16
TUNING = Tuning(100, 0.6)
REQUEST = SearchRequest(Mode.HYBRID, "text", b"vector", "r", 10, None)
FLOORS = st.floats(allow_nan=False)


@given(
    st.builds(Epoch, st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1)),
    FLOORS,
    FLOORS,
    st.lists(st.integers(1, 2**63 - 1), unique=True, max_size=2000).map(sorted).map(tuple),
    st.integers(0, 2**63 - 1),
)
def test_a_state_leads_back_to_what_it_was_made_of(
    epoch: Epoch, dense: float, lexical: float, documents: tuple[int, ...], revision: int
) -> None:
    state = SearchState(epoch, dense, lexical, documents, revision)
    encoded = encode_state(state, DIGEST)
    assert len(encoded) <= MAX_STATE_BYTES
    assert decode_state(encoded, DIGEST) == state


@given(st.binary(max_size=200))
def test_bytes_that_are_no_state_are_none(data: bytes) -> None:
    assert decode_state(data, DIGEST) is None


def test_a_state_cut_short_or_of_another_request_is_none() -> None:
    encoded = encode_state(SearchState(Epoch(1, 2), 0.5, -math.inf, (300, 70_000)), DIGEST)
    assert decode_state(encoded[:-1], DIGEST) is None
    assert decode_state(encoded, b"e" * 16) is None
    assert decode_state(bytes([9]) + encoded[1:], DIGEST) is None


@pytest.mark.parametrize(
    "change",
    [
        {"mode": Mode.DENSE},
        {"text": "other"},
        {"vector": b"other"},
        {"k": 11},
        {"condition": Equals(("a",), True)},
    ],
)
def test_whatever_hits_depend_on_has_a_digest_of_its_own(change: dict[str, object]) -> None:
    other = replace(REQUEST, **change)  # type: ignore[arg-type]
    assert request_digest(REQUEST, TUNING) != request_digest(other, TUNING)
    for tuned in (Tuning(101, 0.6), Tuning(100, 0.5)):
        assert request_digest(REQUEST, TUNING) != request_digest(REQUEST, tuned)


def test_filters_that_differ_in_type_alone_have_digests_of_their_own() -> None:
    values: tuple[str | float | bool | None, ...] = (1, True, "1", None)
    digests = {
        request_digest(replace(REQUEST, condition=Equals(("a",), value)), TUNING)
        for value in values
    }
    assert len(digests) == len(values)


def test_what_hits_do_not_depend_on_does_not_change_the_digest() -> None:
    dense = replace(REQUEST, mode=Mode.DENSE)
    other = replace(dense, text="unused", known_state=b"x", at_least=Epoch(1, 1))
    assert request_digest(dense, TUNING) == request_digest(other, TUNING)
