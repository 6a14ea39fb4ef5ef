"""What a question is in the light of the turns before it."""

from __future__ import annotations

import pytest

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.conversation import leans, standalone

TOWER = pb.Turn(
    question="How tall is the Eiffel Tower?",
    answer="The Eiffel Tower is 300 metres tall. It stands in Paris.",
)
BUILDER = pb.Turn(
    question="And who built it?", answer="It was built by the company of Gustave Eiffel."
)
BEES = pb.Turn(question="why do bees make honey", answer="They eat it in winter.")

LEANING = [
    "and who built it?",
    "When was it opened?",
    "What did he do then?",
    "How many of them are there?",
    "What about in winter?",
    "Why?",
    "who else?",
    "And its colour?",
]


@pytest.mark.parametrize("question", LEANING)
def test_a_question_that_leaves_its_subject_to_the_turns_gets_it(question: str) -> None:
    asked = standalone(question, [TOWER])
    assert asked.startswith(question)
    assert "Eiffel" in asked
    assert "Tower" in asked


ALONE = [
    "Which river flows through Paris?",
    "And which river flows through Paris into the sea?",
    "how is honey stored by bees in winter",
    "Who wrote the play Romeo and Juliet?",
]


@pytest.mark.parametrize("question", ALONE)
def test_a_question_that_names_its_own_subject_is_left_as_it_is(question: str) -> None:
    assert not leans(question)
    assert standalone(question, [TOWER, BUILDER]) == question


def test_a_subject_is_carried_through_turns_that_leave_it_out_too() -> None:
    third = pb.Turn(question="How much does it weigh?", answer="10,100 tonnes.")
    asked = standalone("When was it painted?", [TOWER, BUILDER, third])
    assert {"Eiffel", "Tower", "Gustave"} <= set(asked.strip("?()").replace("(", "").split())


def test_what_is_asked_about_last_is_meant() -> None:
    asked = standalone("Who keeps them?", [TOWER, BEES])
    assert "bees" in asked
    assert "Eiffel" not in asked


def test_without_turns_or_anything_named_in_them_a_question_stays_as_it_is() -> None:
    assert standalone("Who built it?", []) == "Who built it?"
    assert standalone("Who built it?", [pb.Turn(question="And why?")]) == "Who built it?"


def test_a_question_is_never_made_longer_than_a_search_takes() -> None:
    question = "it " * 1_333
    assert standalone(question, [TOWER]) == question
