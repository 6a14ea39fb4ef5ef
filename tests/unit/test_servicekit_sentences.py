import re

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


BREAK = re.compile(
    r"""(?P<stop>(?<![.!?…])[.!?…]++[)\]"'”’»]*+)(?=\s) | (?P<cjk>[。！？]+[」』”’）]*)
    | (?P<line>\n[^\S\n]*(?:\n\s*|(?=[-*+•‣]\s|\d{1,3}[.)]\s|\#{1,6}\s|\|)))""",
    re.VERBOSE,
)
"""Where a sentence may end, said plainly."""
WORD_BEFORE = re.compile(r"([^\W\d_]+(?:\.[^\W\d_]+)*)$")


def plainly_split(text: str) -> list[str]:
    found, start = [], 0
    for match in BREAK.finditer(text):
        if match["stop"]:
            word = WORD_BEFORE.search(text[max(0, match.start() - 20) : match.start()])
            last = word[1] if word else ""
            initial = len(last) == 1 and last.isupper() and last != "I"
            goes_on = initial or "." in last or last.lower() in ("dr", "etc")
            if re.match(r"\s+[\"'“‘(\[]*[a-zà-öø-ÿ]", text[match.end() :]) or (
                match["stop"] == "." and goes_on
            ):
                continue
        found.append(text[start : match.start() if match["line"] else match.end()])
        start = match.end()
    return [it.strip() for it in (*found, text[start:]) if it.strip()]


@given(
    st.lists(
        st.sampled_from([*'aAI1.!?…。！ \n\t"”」)-*#|é', "Dr", "etc", "U.S", ". ", ".\n", "1. "]),
        max_size=40,
    ).map("".join)
)
def test_text_is_split_as_it_is_said_plainly(text: str) -> None:
    assert split(text) == plainly_split(text)
