"""Bringing words to a common form, and telling what a question asks for."""

from __future__ import annotations

import pytest

from quintet_generator.answer_types import AnswerType, answer_type, offers
from quintet_servicekit.words import stem, stems


@pytest.mark.parametrize(
    "words",
    [
        ("founded", "founding", "founder", "Founders"),
        ("computation", "computed", "computing", "computer"),
        ("Luther", "Luther's", "Luther’s"),
        ("company", "companies"),
        ("plan", "planned", "planning"),
        ("café", "CAFE"),
        ("class", "classes"),
    ],
)
def test_forms_of_a_word_meet(words: tuple[str, ...]) -> None:
    assert len({stem(it) for it in words}) == 1


@pytest.mark.parametrize("pair", [("nation", "nature"), ("bus", "busy"), ("1990", "1990s")])
def test_different_words_stay_apart(pair: tuple[str, str]) -> None:
    assert stem(pair[0]) != stem(pair[1])


def test_stop_words_are_left_out() -> None:
    assert stems("Who is the King of Spain?") == [stem("King"), stem("Spain")]


@pytest.mark.parametrize(
    ("question", "wanted", "offering", "not_offering"),
    [
        ("When did it open?", AnswerType.TIME, "It did in 1881.", "It did at last."),
        ("How many were there?", AnswerType.NUMBER, "There were twelve.", "There were some."),
        ("Who wrote it?", AnswerType.NAME, "By then Ada Lovelace had.", "Somebody had."),
        ("Why did it fail?", AnswerType.REASON, "Because of rust.", "It did so."),
    ],
)
def test_a_sentence_offers_what_is_asked_for(
    question: str, wanted: AnswerType, offering: str, not_offering: str
) -> None:
    assert answer_type(question) is wanted
    assert offers(offering, wanted, frozenset())
    assert not offers(not_offering, wanted, frozenset())


def test_what_the_question_says_itself_is_no_offer() -> None:
    asked = frozenset(stems("What happened to Ada in 1840?"))
    assert not offers("They saw Ada in 1840.", AnswerType.NAME, asked)
    assert not offers("They saw Ada in 1840.", AnswerType.TIME, asked)


def test_most_questions_ask_for_nothing_that_can_be_told() -> None:
    assert answer_type("What does the yield expression do?") is None
