"""Packing and what a document is known by, without a network."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2 import TEXT_FORMAT_PLAIN
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chunks import ChunkPlan, under_headings
from quintet_gateway.near_duplicates import near_duplicates
from quintet_gateway.packing import pack
from quintet_gateway.recipes import content_hash, is_cut_alike, set_form


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(-50, 2_000))
def test_packed_passages_fit_the_budget_unless_the_best_alone_does_not(
    tokens: list[int], budget: int
) -> None:
    kept = pack(tokens, budget)
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept == [0] or sum(tokens[i] for i in kept) <= budget


def test_a_smaller_passage_takes_the_place_of_one_that_does_not_fit() -> None:
    assert pack([50, 100, 40], 95) == [0, 2]


def test_a_passage_that_is_passed_by_leaves_its_room_to_others() -> None:
    assert pack([50, 40, 40], 95, passed_by={1}) == [0, 2]
    assert pack([500, 40], 95, passed_by=()) == [0]


PASSAGE = "Rollo agreed to swear fealty to King Charles III of West Francia in the year 911."


def test_a_passage_that_nearly_repeats_a_better_one_is_told_from_others() -> None:
    edited = PASSAGE.replace("agreed", "has agreed")
    other = "The Normans came from Denmark, Iceland and Norway, and settled in the north."
    assert near_duplicates([PASSAGE, other, edited, PASSAGE], 0.7) == {2: 0, 3: 0}
    assert near_duplicates([PASSAGE, edited, PASSAGE], 1.0) == {2: 0}


@given(st.lists(st.text("ab ", max_size=12), max_size=6))
def test_equal_passages_are_repeats_and_the_first_never_is(texts: list[str]) -> None:
    repeats = near_duplicates(texts, 1.0)
    assert 0 not in repeats
    assert all(same < index and same not in repeats for index, same in repeats.items())
    assert all(index in repeats for index, text in enumerate(texts) if text in texts[:index])


def test_passages_of_signs_alone_repeat_the_same_signs_only() -> None:
    texts = ["😀 😀", "}\n});", "😀  😀", "🎉"]
    assert near_duplicates(texts, 0.7) == {2: 0}


PLAN = ChunkPlan(
    chunk_tokens=128, chunk_overlap_tokens=16, heading_chars=100, embed_batch=64, embed_calls=3
)
MODEL = EmbeddingModel("m", "r1")
METADATA = json_format.ParseDict({"k": 1}, Struct())


@pytest.mark.parametrize(
    ("document", "model", "plan"),
    [
        (pb.Document(id="a", content="y"), MODEL, PLAN),
        (pb.Document(id="a", content="x", title="t"), MODEL, PLAN),
        (pb.Document(id="a", content="x", whole=True), MODEL, PLAN),
        (
            pb.Document(id="a", content="x", metadata=METADATA),
            MODEL,
            PLAN,
        ),
        (pb.Document(id="a", content="x"), EmbeddingModel("m", "r2"), PLAN),
        (pb.Document(id="a", content="x"), MODEL, replace(PLAN, chunk_tokens=64)),
        (pb.Document(id="a", content="x"), MODEL, replace(PLAN, heading_chars=0)),
        (pb.Document(id="a", content="x", format=TEXT_FORMAT_PLAIN), MODEL, PLAN),
    ],
)
def test_whatever_chunks_are_made_from_changes_the_content_hash(
    document: pb.Document, model: EmbeddingModel, plan: ChunkPlan
) -> None:
    before = content_hash(pb.Document(id="a", content="x"), MODEL, PLAN)
    assert content_hash(document, model, plan) != before


def test_the_content_hash_ignores_id_and_batch_size() -> None:
    one = content_hash(pb.Document(id="a", content="x"), MODEL, PLAN)
    assert one == content_hash(
        pb.Document(id="b", content="x"), MODEL, replace(PLAN, embed_batch=8)
    )


@pytest.mark.parametrize(
    ("most_chars", "embedded"),
    [(100, "A > B b\ntext"), (7, "A > B b\ntext"), (6, "B b\ntext"), (2, "text"), (0, "text")],
)
def test_a_chunk_is_embedded_below_its_innermost_headings(most_chars: int, embedded: str) -> None:
    assert under_headings("text", ["A", "B b"], most_chars) == embedded


@pytest.mark.parametrize("form", [{}, {"whole": True}, {"format": TEXT_FORMAT_PLAIN}])
def test_a_content_hash_tells_how_its_document_is_cut(form: dict[str, Any]) -> None:
    document = pb.Document(id="a", content="x", **form)
    standing = content_hash(document, MODEL, PLAN)
    again = pb.Document(id="a", content="y")
    set_form(again, standing)
    changed = content_hash(again, MODEL, PLAN)
    assert is_cut_alike(standing, changed) and standing != changed


@pytest.mark.parametrize(
    ("model", "plan"),
    [(EmbeddingModel("m", "r2"), PLAN), (MODEL, replace(PLAN, heading_chars=0))],
)
def test_documents_of_other_models_or_plans_are_not_cut_alike(
    model: EmbeddingModel, plan: ChunkPlan
) -> None:
    document = pb.Document(id="a", content="x")
    one, other = content_hash(document, MODEL, PLAN), content_hash(document, model, plan)
    assert not is_cut_alike(one, other)
    assert not is_cut_alike("0" * 64, "0" * 64)
