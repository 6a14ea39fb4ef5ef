"""Answers made of the passages' own sentences."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib.resources import files

import pytest

from quintet_generator.extractive import DECIDING, answer
from quintet_generator.models import (
    Citation,
    Event,
    Finished,
    FinishReason,
    Passage,
    Query,
    TextDelta,
)
from quintet_generator.relevance import ranked

BRIDGE = Passage(
    "Bridge",
    "The bridge is made of steel. It was opened in 1981 by the Queen. "
    "Before that a ferry crossed the river.",
)
FERRY = Passage("Ferry", "A ferry has no bridge 🙂. Its captain was Ann Brown.")
QUERY = Query("", "When was the bridge opened?", (BRIDGE, FERRY), "answer", 256)


def text_of(events: list[Event]) -> str:
    return "".join(it.text for it in events if isinstance(it, TextDelta))


def citations_of(events: list[Event]) -> list[Citation]:
    return [it for it in events if isinstance(it, Citation)]


def end_of(events: list[Event]) -> Finished:
    [finished] = [it for it in events if isinstance(it, Finished)]
    assert events[-1] is finished
    return finished


def assert_cited(query: Query, events: list[Event]) -> None:
    text = text_of(events)
    for it in citations_of(events):
        passage = query.passages[it.passage_index].text
        assert text[it.answer_start : it.answer_end] == passage[it.passage_start : it.passage_end]
        assert it.answer_end > it.answer_start
        assert it.support == 1


def test_every_sentence_is_a_verbatim_slice_of_its_passage() -> None:
    for question in ("When was the bridge opened?", "Who was captain?", "ferry", "bridge steel"):
        for sentences in (1, 2, 5):
            query = replace(QUERY, question=question)
            events = answer(query, sentences)
            assert_cited(query, events)
            assert 1 <= len(citations_of(events)) <= sentences


def test_the_sentence_that_offers_what_is_asked_for_is_best() -> None:
    events = answer(QUERY, 1)
    assert text_of(events) == "It was opened in 1981 by the Queen."
    assert end_of(events).reason is FinishReason.STOP


def test_sentences_of_one_passage_keep_their_order() -> None:
    citations = citations_of(answer(QUERY, 5))
    starts = [it.passage_start for it in citations if it.passage_index == 0]
    assert starts == sorted(starts)


@pytest.mark.parametrize("question", ["What is love?", "Who is he?", "???", "日本語"])
def test_nothing_shared_gives_an_empty_answer(question: str) -> None:
    [finished] = answer(replace(QUERY, question=question), 3)
    assert end_of([finished]).completion_tokens == 0


def test_the_same_request_gets_the_same_answer() -> None:
    assert answer(QUERY, 3) == answer(QUERY, 3)


def test_an_earlier_passage_wins_between_equals() -> None:
    best = ranked("bridge", [Passage("", "A bridge."), Passage("", "A bridge.")])[0]
    assert best.passage_index == 0


def test_a_sentence_that_passages_share_comes_once() -> None:
    twice = replace(QUERY, passages=(BRIDGE, Passage("Again", BRIDGE.text)))
    texts = [it.text.strip() for it in answer(twice, 5) if isinstance(it, TextDelta)]
    assert len(texts) == len(set(texts))


def test_half_a_sentence_gives_way_to_the_whole_one_of_another_passage() -> None:
    whole = "Comparisons can be chained, and have a left-to-right chaining."
    passages = [Passage("", "have a left-to-right chaining. More."), Passage("", whole)]
    best, *others = ranked("How are comparisons chained left to right?", passages)
    assert (best.passage_index, best.start, best.end) == (1, 0, len(whole))
    assert others == []


@pytest.mark.parametrize("heading", ["# Opening the bridge", "Opening the bridge\n*********"])
def test_a_heading_does_not_stand_for_an_answer(heading: str) -> None:
    passage = Passage("", f"{heading}\n\nTo open the bridge, pull the lever.")
    events = answer(replace(QUERY, question="Opening the bridge?", passages=(passage,)), 3)
    assert text_of(events) == "To open the bridge, pull the lever."


def test_max_tokens_cuts_the_best_sentence_and_drops_the_others() -> None:
    for size in range(1, 30):
        query = replace(QUERY, max_tokens=size)
        events = answer(query, 3)
        assert_cited(query, events)
        assert 1 <= end_of(events).completion_tokens <= size
    assert end_of(answer(replace(QUERY, max_tokens=3), 3)).reason is FinishReason.LENGTH
    assert text_of(answer(replace(QUERY, max_tokens=3), 3)) == "It was opened"


def test_a_stop_text_ends_the_answer_and_its_citation() -> None:
    query = replace(QUERY, stop=("1981",))
    events = answer(query, 1)
    assert text_of(events) == "It was opened in "
    assert_cited(query, events)
    assert end_of(events).reason is FinishReason.STOP


def test_a_stop_text_at_the_start_leaves_nothing() -> None:
    assert len(answer(replace(QUERY, stop=("It was",)), 1)) == 1


def test_offsets_are_characters_not_bytes() -> None:
    query = replace(QUERY, question="Has the ferry a bridge?", passages=(FERRY,))
    events = answer(query, 2)
    assert_cited(query, events)
    assert "🙂" in text_of(events)


@pytest.mark.parametrize("form", ["{}", "**{}**", "Q: {}", '$ quintet ask "{}"'])
def test_a_question_that_a_text_asks_is_no_answer_to_it(form: str) -> None:
    text = f"{form.format(QUERY.question)}\n\nIn spring of 1981."
    told = text_of(answer(replace(QUERY, passages=(Passage("", text), BRIDGE)), 1))
    assert told == "It was opened in 1981 by the Queen."


def test_each_module_that_chooses_sentences_is_in_the_revision() -> None:
    deciding = {f"{package}.{name}" for package, names in DECIDING.items() for name in names}
    # They hold what is asked and told, and choose nothing.
    others = {
        "quintet_generator.models",
        "quintet_generator.prompts",
        "quintet_servicekit.executor",
    }
    for module in deciding:
        package, _, name = module.partition(".")
        source = (files(package) / f"{name}.py").read_text("utf-8")
        imported = {
            it.module for it in ast.walk(ast.parse(source)) if isinstance(it, ast.ImportFrom)
        }
        ours = {it for it in imported if it and it.startswith("quintet")}
        assert ours <= deciding | others, module
