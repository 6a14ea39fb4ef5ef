"""How rankings are scored and compared."""

from __future__ import annotations

import math

import pytest

from evaluation.scoring import Scores, difference, score

JUDGEMENTS = {"q1": {"a": 1}, "q2": {"b": 2, "c": 1}, "q3": {"d": 1}}


def test_a_perfect_run_scores_one_and_a_query_without_hits_nothing() -> None:
    run = {"q1": {"a": 2.0, "x": 1.0}, "q2": {"b": 2.0, "c": 1.0}, "q3": {}}
    found = score(JUDGEMENTS, run)
    assert found.ndcg_by_query == pytest.approx((1, 1, 0))
    assert found.means == pytest.approx({"ndcg@10": 2 / 3, "recall@100": 2 / 3, "mrr": 2 / 3})


def test_a_relevant_document_at_the_second_place_is_discounted() -> None:
    found = score({"q": {"a": 1}}, {"q": {"x": 2.0, "a": 1.0}})
    assert found.means["ndcg@10"] == pytest.approx(1 / math.log2(3))
    assert found.means["mrr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.2, 0.1, 0.3] * 20, "above"),
        ([-0.2, -0.1, -0.3] * 20, "below"),
        ([0.2, -0.2] * 20, "equal within chance"),
    ],
)
def test_a_difference_counts_only_beyond_chance(gains: list[float], verdict: str) -> None:
    base = Scores({}, tuple([0.5] * len(gains)))
    other = Scores({}, tuple(0.5 + gain for gain in gains))
    found = difference(other, base)
    assert found.verdict == verdict
    assert found.low <= found.mean <= found.high
