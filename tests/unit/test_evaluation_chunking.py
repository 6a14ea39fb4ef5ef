"""What the comparison of ways to cut looks for, and how it counts what is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.chunking import BUDGET, Wanted, articles, sections, share_of
from quintet.retriever.v1 import retriever_service_pb2 as pb

LONG = "word " * 30
NOTE = f"# Note\n\n{LONG}\n\n## One\n\n{LONG}\n\n### Below\n\nshort\n\n## Two\n\nshort\n"


def test_a_heading_looks_for_its_section_with_those_below(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(NOTE, encoding="utf-8")
    (wanted,) = sections(tmp_path).queries
    assert (wanted.query, wanted.document) == ("One", "a.md")
    assert NOTE[wanted.start : wanted.end].strip() == f"{LONG}\n\n### Below\n\nshort"


def test_a_question_looks_for_its_paragraph_in_the_article(tmp_path: Path) -> None:
    paragraphs = [{"_id": f"p{i}", "title": "T", "text": f"text {i}"} for i in range(3)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, paragraphs)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "which?"}))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp1\t1\n")
    task = articles(tmp_path)
    (wanted,) = task.queries
    assert task.documents["T"][wanted.start : wanted.end] == "text 1"


@pytest.mark.parametrize(
    ("hits", "share"),
    [
        ([("a", 100, 150, 10)], 0.5),
        ([("a", 50, 125, 10), ("a", 120, 130, 10)], 0.3),
        ([("b", 100, 200, 10)], 0.0),
        ([("b", 0, 9, BUDGET), ("a", 100, 200, 1)], 0.0),
        ([("a", 0, 300, BUDGET)], 1.0),
        ([("a", 0, 90, 10)], 0.0),
    ],
)
def test_characters_within_the_budget_count_once(
    hits: list[tuple[str, int, int, int]], share: float
) -> None:
    found = [pb.Hit(document_id=d, start=s, end=e, tokens=t) for d, s, e, t in hits]
    assert share_of(Wanted("?", "a", 100, 200), found) == pytest.approx(share)
