import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_servicekit.sentences import sentence_spans


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith paid $3.50 to J. R. Jones. He left.", None),
        ("He said “go.” She went.", ["He said “go.”", "She went."]),
        ("It cost approx. 5 dollars, e.g. for tea.", ["It cost approx. 5 dollars, e.g. for tea."]),
        ("Title\n\nFirst line\nsecond line", ["Title", "First line\nsecond line"]),
        ("Do:\n- one\n- two\n1. three", ["Do:", "- one", "- two", "1. three"]),
        ("これは一つ。これは二つ。", ["これは一つ。", "これは二つ。"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_text_splits_at_the_ends_of_sentences(text: str, sentences: list[str] | None) -> None:
    if sentences is None:
        sentences = ["Dr. Smith paid $3.50 to J. R. Jones.", "He left."]
    assert split(text) == sentences


@given(st.text(alphabet=st.sampled_from('aA1.!? \n"”。-*é'), max_size=80))
def test_sentences_hold_all_but_white_space_and_never_overlap(text: str) -> None:
    spans = sentence_spans(text)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(text[s:e] == text[s:e].strip() != "" for s, e in spans)
    held = "".join(text[s:e] for s, e in spans)
    assert "".join(held.split()) == "".join(text.split())
