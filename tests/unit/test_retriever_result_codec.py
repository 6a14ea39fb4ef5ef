"""Cached search results come out as they went in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError

from quintet_retriever.models import Hit, SearchResult
from quintet_retriever.responses import hit_message
from quintet_retriever.result_codec import decode, encode
from quintet_servicekit.consistency import Epoch

HIT = Hit(
    document_id="d",
    document_version=3,
    title="naïve 東京",
    metadata={"n": 1, "list": [1, {"a": None}], "nested": {"b": [True, "x"]}},
    chunk_index=2,
    text="text",
    start=5,
    end=9,
    tokens=1,
    score=0.031,
    dense=0.5,
    dense_rank=1,
    lexical=None,
    lexical_rank=None,
)


@pytest.mark.parametrize(
    "hit", [HIT, replace(HIT, metadata={}, dense=None, dense_rank=None, lexical=0.0)]
)
def test_a_result_comes_out_as_it_went_in(hit: Hit) -> None:
    result = SearchResult((hit, HIT), Epoch(1_760_000_000_000, 7), b"state", compared_all=True)
    found = decode(encode(result))
    assert (found.epoch, found.state, found.unchanged) == (result.epoch, result.state, False)
    assert found.compared_all
    # Numbers of metadata are floats on the wire, of a cached result and of a computed one.
    assert list(map(hit_message, found.hits)) == list(map(hit_message, result.hits))
    assert replace(found.hits[0], metadata={}) == replace(hit, metadata={})


def test_what_is_cut_short_is_refused() -> None:
    raw = encode(SearchResult((HIT,), Epoch(1, 7), b"state"))
    with pytest.raises(DecodeError):
        decode(raw[:-1])
