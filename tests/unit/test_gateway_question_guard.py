"""Which questions may have each other's answers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_gateway.question_guard import MAX_CHARS, same_meaning_possible, signature

SAME = [
    ("What is the capital of France?", "what is the capital of France"),
    ("What is  the capital of France ?", "What's the capital of France?"),
    ("What’s the capital of France", "What's the capital of France?"),
    ("Can you please tell me what the capital of France is?", "What is the capital of France?"),
    ("Hi, could you explain how photosynthesis works?", "How photosynthesis works?"),
    ("I'd like to know when the Louvre opens", "When the Louvre opens?"),
    ("How do I reset my password?", "How can I reset my password?"),
    ("How to export a report?", "How do we export reports?"),
    ("What are the best books on chess?", "Which is the best book on chess?"),
    ("Why isn't the server starting?", "Why is not the server starting?"),
    ("Why doesnt it work", "Why doesn't it work?"),
    ("Where is the Louvre in Paris?", "Where in Paris is the Louvre?"),
    ("What is the difference between TCP and UDP?", "What's the difference between UDP and TCP?"),
    ("Is e-mail encrypted?", "Is the e mail encrypted?"),
    ("What costs 20,000 dollars?", "What costs 20000 dollars?"),
    ("What are the three laws of motion?", "What are the 3 laws of motion?"),
    ("What exactly is an index?", "What is an index?"),
    ("What are some ways of saving energy?", "What are ways of saving energy?"),
    ("How many users are there?", "How many users are there"),
    ("东京在哪里？", "东京在哪里?"),
]
DIFFERENT = {
    "number": [
        ("Who won the cup in 2019?", "Who won the cup in 2020?"),
        ("What is a class 2 laser?", "What is a class three laser?"),
        ("What is 5% of 20?", "What is 5 of 20?"),
        ("How far is 5 km?", "How far is 5 miles?"),
        ("What melts at -5 degrees?", "What melts at 5 degrees?"),
        ("What is new in 3.11?", "What is new in 3.12?"),
        ("Who was the first president?", "Who was the second president?"),
        ("What is the limit of 1.5?", "What is the limit of 15?"),
        ("What is 2²?", "What is 22?"),
    ],
    "date": [
        ("What happened on 3 May?", "What happened on 4 May?"),
        ("What happened on 2019-10-12?", "What happened on 2019-12-10?"),
        ("What opens at 10:30?", "What opens at 10:45?"),
        ("What is due on Monday?", "What is due on Tuesday?"),
    ],
    "name": [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("How do I install python?", "How do I install java?"),
        ("What is C?", "What is C++?"),
        ("What is .NET?", "What is net?"),
        ("What is the US policy?", "What is us policy?"),
        ("How much does Apple cost?", "How much does an apple cost?"),
        ("How do I leave Teams?", "How do I leave teams?"),
        ("What is vitamin A?", "What is vitamin?"),
        ("Who was in World War I?", "Who was in World War II?"),
        ("What does WHO do?", "What does who do?"),
    ],
    "negation": [
        ("Can I smoke here?", "Can't I smoke here?"),
        ("Why is it working?", "Why isn't it working?"),
        ("What is a profit?", "What is a non-profit?"),
        ("Is it legal?", "Is it illegal?"),
        ("Do I need no visa?", "Do I need a visa?"),
    ],
    "comparison": [
        ("What is the best phone?", "What is the worst phone?"),
        ("What is a good phone?", "What is the best phone?"),
        ("What is more expensive?", "What is less expensive?"),
        ("Is rust faster than go?", "Is go faster than rust?"),
        ("Is tea as strong as coffee?", "Is tea stronger than coffee?"),
    ],
    "quantity": [
        ("Do all birds fly?", "Do any birds fly?"),
        ("Why do some people snore?", "Why do people snore?"),
        ("Can I only pay by card?", "Can I pay by card?"),
        ("Why are some people rich?", "Why are people rich?"),
        ("Are there few seats?", "Are there a few seats?"),
    ],
    "opposite": [
        ("How do I import data?", "How do I export data?"),
        ("What should I do before surgery?", "What should I do after surgery?"),
        ("How do I turn on the light?", "How do I turn off the light?"),
        ("Does stress increase weight?", "Does stress decrease weight?"),
        ("Where can I buy gold?", "Where can I sell gold?"),
        ("Can I fly with a visa?", "Can I fly without a visa?"),
    ],
    "direction": [
        ("How do I get from Paris to Rome?", "How do I get from Rome to Paris?"),
        ("How do I convert feet to metres?", "How do I convert metres to feet?"),
        ("Do dogs chase cats?", "Do cats chase dogs?"),
        ("Who does Ann love?", "Who loves Ann?"),
        ("What is X in Rome? Why is Y at Bari?", "What is X at Bari? Why is Y in Rome?"),
    ],
    "kind of question": [
        ("Who founded Rome?", "When founded Rome?"),
        ("How many people live there?", "How much people live there?"),
        ("How long is the bridge?", "How old is the bridge?"),
        ("Is the bridge open?", "Why is the bridge open?"),
        ("What does a lawyer do?", "What is a lawyer?"),
        ("Tell me what lawyers do", "What are lawyers?"),
        ("How do I vote?", "Where do I vote?"),
        ("The bridge is open", "Is the bridge open?"),
        ("Is the bridge open? Why?", "Why is the bridge open?"),
    ],
    "tense": [
        ("Who is the president?", "Who was the president?"),
        ("What was X and what is Y?", "What is X and what was Y?"),
        ("Will it rain?", "Did it rain?"),
        ("May I enter?", "Must I enter?"),
        ("How is steel made?", "How did steel make?"),
    ],
    "person": [
        ("How do you store my data?", "How do I store my data?"),
        ("What are my rights?", "What are your rights?"),
        ("Why does he like her?", "Why does she like him?"),
    ],
    "quotation and code": [
        ('Who wrote "It"?', "Who wrote it?"),
        ("What does `foo` return?", "What does `Foo` return?"),
        ("What is user_id?", "What is user id?"),
        ("What does != mean?", "What does = mean?"),
        ("What is ()?", "What is (,)?"),
        ("What does ! mean in C?", "What does ? mean in C?"),
    ],
    "article": [
        ("What is the matrix?", "What is a matrix?"),
        ("How do I see an admin?", "How can I see the admin?"),
    ],
    "word that only looks alike": [
        ("What is a build?", "What is a building?"),
        ("Where does a chemical engineer work?", "Where does chemical engineering work?"),
        ("What is new?", "What is news?"),
        ("How do I clean glass?", "How do I clean glasses?"),
    ],
}


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_harmless_rewording_is_accepted(one: str, other: str) -> None:
    assert same_meaning_possible(signature(one), signature(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [pytest.param(*it, id=f"{k}: {it[1]}") for k, v in DIFFERENT.items() for it in v],
)
def test_another_question_is_refused_however_near_it_is(one: str, other: str) -> None:
    assert not same_meaning_possible(signature(one), signature(other))
    assert not same_meaning_possible(signature(other), signature(one))


@pytest.mark.parametrize("question", ["", " ", "?", "What is", "x " * 101, "x" * (MAX_CHARS + 1)])
def test_what_says_nothing_or_too_much_is_like_nothing(question: str) -> None:
    assert not same_meaning_possible(signature(question), signature(question))


def test_a_question_is_like_itself_whatever_its_articles() -> None:
    said = signature("Is the cat a cat?")
    assert same_meaning_possible(said, said)


@given(st.text(max_size=200), st.text(alphabet="abcdefghij", min_size=5, max_size=9))
def test_any_text_has_a_signature_that_one_more_word_changes(text: str, word: str) -> None:
    said = signature(text)
    assert same_meaning_possible(said, signature(text)) == said.comparable
    assert not same_meaning_possible(said, signature(f"{text} {word}"))


@pytest.mark.parametrize(
    "question", ["? a" * 1_300, "a" + "." * 3_998 + "a", "«" * 4_000, "a' " * 1_300, "a_." * 1_300]
)
def test_a_signature_is_taken_in_linear_time(question: str) -> None:
    began = time.perf_counter()
    signature(question)
    assert time.perf_counter() - began < 0.1
