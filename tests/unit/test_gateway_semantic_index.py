"""Finding a question that asks the same."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet_gateway.question_guard import same_meaning_possible, signature
from quintet_gateway.semantic_index import MOST_ALIKE, SemanticIndex

ASKED = "What is the capital of France?"
REWORDED = "Please tell me what the capital of France is"


def index(
    *, max_questions: int = 100, max_scope_questions: int = 100, threshold: float = 0.9
) -> SemanticIndex:
    return SemanticIndex(
        max_questions=max_questions, max_scope_questions=max_scope_questions, threshold=threshold
    )


def packed(values: Iterable[float]) -> bytes:
    return np.array(list(values), dtype="<f4").tobytes()


def at(degrees: float, length: float = 1.0) -> bytes:
    """A vector of two dimensions."""
    angle = math.radians(degrees)
    return packed([length * math.cos(angle), length * math.sin(angle)])


def test_a_rewording_finds_the_question_whatever_the_lengths_of_the_vectors() -> None:
    known = index()
    known.add(b"scope", b"key", at(10, length=7), ASKED)
    near = known.nearest(b"scope", at(20, length=0.1), signature(REWORDED))
    assert near is not None
    assert (near.key, near.question) == (b"key", ASKED)
    assert near.similarity == pytest.approx(math.cos(math.radians(10)), abs=1e-6)


def test_similarity_is_never_above_one() -> None:
    known = index()
    known.add(b"scope", b"key", packed([0.1] * 384), ASKED)
    near = known.nearest(b"scope", packed([0.1] * 384), signature(ASKED))
    assert near is not None
    assert 0.999999 < near.similarity <= 1


def test_another_scope_another_question_and_a_far_vector_find_nothing() -> None:
    known = index()
    known.add(b"scope", b"key", at(0), ASKED)
    assert known.nearest(b"other", at(0), signature(ASKED)) is None
    assert known.nearest(b"scope", at(0), signature("What is the capital of Spain?")) is None
    assert known.nearest(b"scope", at(30), signature(ASKED)) is None
    assert known.nearest(b"scope", packed([1, 0, 0]), signature(ASKED)) is None


@pytest.mark.parametrize(
    "vector", [b"", packed([0, 0]), packed([math.nan, 1]), packed([math.inf, 1])]
)
def test_a_vector_without_a_direction_is_neither_kept_nor_found(vector: bytes) -> None:
    known = index()
    known.add(b"scope", b"key", vector, ASKED)
    assert len(known) == 0
    known.add(b"scope", b"key", at(0), ASKED)
    assert known.nearest(b"scope", vector, signature(ASKED)) is None


def test_a_vector_that_is_cut_is_an_error() -> None:
    with pytest.raises(struct.error):
        index().add(b"scope", b"key", b"123456", ASKED)


def test_what_can_be_compared_with_nothing_is_not_kept() -> None:
    known = index()
    known.add(b"scope", b"key", at(0), "?")
    assert len(known) == 0


def test_a_key_belongs_to_the_last_question_that_had_it() -> None:
    known = index()
    known.add(b"scope", b"key", at(0), ASKED)
    known.add(b"other", b"key", at(0), "Who are you?")
    assert len(known) == 1
    assert known.nearest(b"scope", at(0), signature(ASKED)) is None


def test_what_was_discarded_is_not_found() -> None:
    known = index()
    for number, scope in enumerate([b"a", b"a", b"b"]):
        known.add(scope, b"%d" % number, at(number), ASKED)
    known.discard(b"0")
    known.discard(b"unknown")
    near = known.nearest(b"a", at(0), signature(ASKED))
    assert near is not None
    assert near.key == b"1"
    known.discard(b"1")
    assert len(known) == 1
    assert known.nearest(b"a", at(0), signature(ASKED)) is None
    assert known.nearest(b"b", at(0), signature(ASKED)) is not None


def test_the_least_recently_used_question_of_a_full_scope_goes() -> None:
    known = index(max_scope_questions=2)
    known.add(b"scope", b"1", at(0), "What is one?")
    known.add(b"scope", b"2", at(0), "What is two?")
    assert known.nearest(b"scope", at(0), signature("What is one?")) is not None
    known.add(b"scope", b"3", at(0), "What is three?")
    assert len(known) == 2
    assert known.nearest(b"scope", at(0), signature("What is two?")) is None
    assert known.nearest(b"scope", at(0), signature("What is one?")) is not None


def test_a_full_index_loses_from_the_scope_least_recently_used() -> None:
    known = index(max_questions=2)
    known.add(b"a", b"1", at(0), ASKED)
    known.add(b"b", b"2", at(0), ASKED)
    assert known.nearest(b"a", at(0), signature(ASKED)) is not None
    known.add(b"c", b"3", at(0), ASKED)
    assert len(known) == 2
    assert known.nearest(b"b", at(0), signature(ASKED)) is None


def test_a_look_up_compares_with_a_few_wordings_only() -> None:
    known = index()
    for number in range(MOST_ALIKE + 3):
        known.add(b"scope", b"%d" % number, at(number), ASKED)
    assert len(known) == MOST_ALIKE
    near = known.nearest(b"scope", at(0), signature(ASKED))
    assert near is not None
    assert near.key == b"3"


QUESTIONS = [ASKED, REWORDED, "Which is a capital of France?", "What is the capital of Spain?"]


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b"]),
            st.sampled_from(QUESTIONS),
            st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
        ),
        max_size=MOST_ALIKE,
    ),
    st.sampled_from(QUESTIONS),
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
)
def test_it_finds_what_comparing_with_every_question_finds(
    added: list[tuple[bytes, str, list[float]]], question: str, vector: list[float]
) -> None:
    known, asked = index(threshold=0.5), np.array(vector, dtype=np.float64)
    expected = -1.0
    for number, (scope, text, values) in enumerate(added):
        known.add(scope, b"%d" % number, packed(values), text)
        lengths = np.linalg.norm(values) * np.linalg.norm(asked)
        if (
            scope == b"a"
            and lengths
            and same_meaning_possible(signature(text), signature(question))
        ):
            expected = max(expected, float(np.dot(values, asked) / lengths))
    near = known.nearest(b"a", packed(vector), signature(question))
    if near is not None:
        assert near.similarity == pytest.approx(expected, abs=1e-5)
    else:
        assert expected < 0.5 + 1e-5
