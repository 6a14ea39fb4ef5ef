"""Stop texts."""

from __future__ import annotations

import random

import pytest

from quintet_generator.stops import StopMatcher


def through(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(it) for it in pieces)
    stopped = matcher.stopped
    return text + matcher.flush(), stopped


@pytest.mark.parametrize(
    "pieces", [["one STOP two"], ["one S", "TO", "P two"], list("one STOP two")]
)
def test_a_stop_text_ends_the_answer_however_it_is_cut(pieces: list[str]) -> None:
    assert through(["STOP"], pieces) == ("one ", True)


def test_a_beginning_that_does_not_become_a_stop_text_is_let_through() -> None:
    assert through(["STOP"], ["one ST", "ONE", " ST"]) == ("one STONE ST", False)


def test_no_part_of_a_stop_text_comes_out_early() -> None:
    matcher = StopMatcher(["\n\n"])
    assert [matcher.push(it) for it in ("a", "\n", "b", "\n", "\nc")] == ["a", "", "\nb", "", ""]
    assert matcher.stopped
    assert matcher.push("more") == matcher.flush() == ""


def test_the_first_of_several_stop_texts_wins() -> None:
    assert through(["two", "one"], ["zero one two"]) == ("zero ", True)


def test_without_stop_texts_everything_passes_at_once() -> None:
    matcher = StopMatcher([])
    assert [matcher.push(it) for it in ("a", "b")] == ["a", "b"]
    assert matcher.flush() == ""


def test_cutting_the_text_elsewhere_changes_nothing() -> None:
    text, stops = "abababcababd", ["abc", "abd"]
    chance = random.Random(1)
    for _ in range(100):
        cuts = sorted(chance.sample(range(1, len(text)), 4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert through(stops, pieces) == ("abab", True)
