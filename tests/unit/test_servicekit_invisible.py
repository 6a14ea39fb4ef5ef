from hypothesis import given
from hypothesis import strategies as st

from quintet_servicekit.invisible import invisible_spans, visible

SHOWN = [*"aé\t\nب👨", "\ufe0f"]
HIDDEN = [
    "\0",
    "\x1b",
    "\x7f",
    "\x9f",
    "\u00ad",
    "\u200b",
    "\u202e",
    "\ufeff",
    "\ufffb",
    "\U000e0041",
]


@given(st.lists(st.sampled_from([*SHOWN[:-1], *HIDDEN]), max_size=20))
def test_what_nobody_sees_goes_and_the_rest_stays(characters: list[str]) -> None:
    text = "".join(characters)
    assert visible(text) == "".join(it for it in characters if it in SHOWN)
    cut = text
    for start, end in reversed(invisible_spans(text)):
        cut = cut[:start] + cut[end:]
    assert cut == visible(text)


def test_joiners_stay_between_letters_that_need_them() -> None:
    assert visible("می\u200cخواهم") == "می\u200cخواهم"
    assert visible("👨\u200d👩") == "👨\u200d👩"
    assert visible("a\u200cb") == "ab"


def test_one_variation_selector_stays_and_a_run_goes() -> None:
    assert visible("❤\ufe0f") == "❤\ufe0f"
    assert visible("❤\ufe00\ufe01") == "❤"
