"""How answers are scored and compared, and how the figures get into their page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.answers_page import BEGIN, END, filled
from evaluation.asking import Answer, Question
from evaluation.ways import cites, figures, is_refusal, notes, recall, scored, texts

ASKED = Question("xquad", "c", "q", "Who?", ("the Lama",))


def answered(text: str, way: str = "one", question: str = "c q", **fields: bool) -> Answer:
    return Answer(way, question, text, fields.get("abstained", False), [("d", 10, 20)])


@pytest.mark.parametrize(
    "text",
    ["I don't know who.", "I do not know.", "The passages don't say it.", "It is not mentioned."],
)
def test_a_model_that_says_that_it_does_not_know_has_refused(text: str) -> None:
    assert is_refusal(answered(text))


@pytest.mark.parametrize("text", ["A lama does not eat.", "Nobody knows the text of the law."])
def test_an_answer_with_a_negation_is_no_refusal(text: str) -> None:
    assert not is_refusal(answered(text))


def test_an_answer_scores_what_it_holds_and_a_refusal_nothing() -> None:
    given = scored(ASKED, answered("It is a Lama."))
    assert (given["right"], given["recall"], given["f1"]) == (1, 1, 0.5)
    refused = scored(ASKED, answered("It is a Lama.", abstained=True))
    assert (refused["right"], refused["recall"], refused["f1"]) == (0, 0, 0)
    assert refused["refused wrongly"] == 1


def test_recall_counts_each_word_of_the_reference_once() -> None:
    assert recall("red red fox", "The red, red dog") == 0.5


def test_a_place_is_cited_by_whatever_reaches_into_it() -> None:
    assert cites(answered(""), ("d", 19, 30))
    assert not cites(answered(""), ("d", 20, 30))
    assert not cites(answered(""), ("e", 10, 20))


def test_ways_are_compared_on_the_questions_that_all_answered() -> None:
    others = [Question("xquad", "c", it, "Who?", ("Lama",)) for it in ("r", "s")]
    nowhere = Question("xquad", "d", "q", "Who?")
    found = [
        *(answered("Lama", question=it) for it in ("c q", "c r", "c s")),
        *(answered("Pope", "two", question=it) for it in ("c q", "c r")),
        *(answered("", way, "d q", abstained=way == "two") for way in ("one", "two")),
    ]
    told = figures([ASKED, *others, nowhere], ["one", "two"], found)["xquad"]
    assert (told["with an answer"], told["without"]) == (2, 1)
    assert told["ways"]["one"]["right"]["mean"] == 1
    against = told["ways"]["two"]["right"]["against"]
    assert (against["mean"], against["low"], against["high"]) == (-1, -1, -1)
    assert told["ways"]["two"]["refused rightly"]["mean"] == 1


def test_a_larger_sample_holds_the_smaller_and_asks_where_the_answer_is_and_where_not(
    tmp_path: Path,
) -> None:
    for name in ("xquad32-dev", "clapnq"):
        (tmp_path / name).mkdir()
        ids = [f"p{i}" for i in range(20)]
        rows = [{"_id": it, "title": "", "text": it} for it in ids]
        (tmp_path / name / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
        asked = [
            {"_id": it, "text": it, "answers": [it], "gold_doc": it, "is_impossible": False}
            for it in ids
        ]
        (tmp_path / name / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    few, many = texts(tmp_path, 3), texts(tmp_path, 6)
    assert few == many[: len(few)] and len(few) < len(many)
    xquad = [it for it in many if it.of == "xquad"]
    there = {it.id: it.collection for it in xquad if it.references}
    elsewhere = {it.id: it.collection for it in xquad if not it.references}
    assert len(there) == 6 and there.keys() == elsewhere.keys()
    assert all(there[it] != elsewhere[it] for it in there)


def test_a_sentence_with_a_link_is_after_the_document_that_the_link_leads_to(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "notes-foam" / "notes"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text("# A\n\nAll that grows there is told in [[b]] at length.\n")
    link = {"source": "a.md", "raw": "[[b]]", "resolved": "b.md"}
    (tmp_path / "notes-foam" / "links.jsonl").write_text(json.dumps(link))
    (asked,) = notes(tmp_path)
    assert asked.text == "All that grows there is told in at length."
    assert asked.place is not None and asked.place[0] == "b.md"


def test_figures_stand_between_the_comments_and_what_is_around_them_stays() -> None:
    told = figures([ASKED], ["one"], [answered("Lama")])
    told["xquad"]["ways"]["one"]["refused rightly"] = told["xquad"]["ways"]["one"]["right"]
    page = filled(f"before\n{BEGIN}\nold\n{END}\nafter", {"models": told}, "2026-01-02")
    assert page.startswith("before\n") and page.endswith("\nafter")
    assert "old" not in page and "100.0 (100.0–100.0)" in page
    assert filled(page, {"models": told}, "2026-01-02") == page


def test_a_page_without_a_place_for_the_figures_is_an_error() -> None:
    with pytest.raises(ValueError, match="no <!--"):
        filled("a page", {}, "2026-01-02")
