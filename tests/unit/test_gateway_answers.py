"""Packing and citing, without a network."""

from dataclasses import replace

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2 import TEXT_FORMAT_PLAIN
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chunks import ChunkPlan, under_headings
from quintet_gateway.citations import Citer, support
from quintet_gateway.ingest import content_hash
from quintet_gateway.packing import pack


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


PASSAGES = [
    "The Normans came from Denmark. They settled in Normandy.",
    "Rollo agreed to swear fealty to King Charles III of West Francia.",
]


def test_each_sentence_is_cited_to_the_passage_sentence_that_holds_its_words() -> None:
    answer = "The Normans settled in Normandy. Rollo swore fealty to King Charles. Cats purr."
    citer = Citer(PASSAGES, min_support=0.5)
    cited = citer.feed(answer[:40]) + citer.feed(answer[40:]) + citer.finish()
    assert [
        (
            answer[c.answer_start : c.answer_end],
            PASSAGES[c.passage_index][c.passage_start : c.passage_end],
        )
        for c in cited
    ] == [
        ("The Normans settled in Normandy.", "They settled in Normandy."),
        ("Rollo swore fealty to King Charles.", PASSAGES[1]),
    ]
    assert all(0.5 <= c.support <= 1 for c in cited)


@given(st.lists(st.text("ab. \n", max_size=8), max_size=10))
def test_citing_a_stream_equals_citing_the_whole(pieces: list[str]) -> None:
    streamed, whole = Citer(["a b. ab."], 0.5), Citer(["a b. ab."], 0.5)
    cited = [c for piece in pieces for c in streamed.feed(piece)] + streamed.finish()
    at_once = whole.feed("".join(pieces)) + whole.finish()
    assert cited == at_once


def test_a_model_that_cites_is_left_to_it() -> None:
    citer = Citer(PASSAGES, 0.1)
    citer.model_cites()
    assert citer.feed(PASSAGES[0] + " More.") == citer.finish() == []


def test_support_is_the_share_of_words_found() -> None:
    assert support(frozenset("abcd"), frozenset("abxy")) == 0.5
    assert support(frozenset(), frozenset("a")) == 0


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
