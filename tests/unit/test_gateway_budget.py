"""How a question's time is shared out among its calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_gateway.budget import MODELS, Plan

FLOORS = {"Embed": 0.02, "Search": 0.03, "Count": 0.01, "GenerateStream": 0.1}


def plan() -> Plan:
    return Plan(FLOORS, reply_seconds=0.02, substitute_after=5.0)


def test_a_call_gets_what_remains_less_what_later_ones_need() -> None:
    assert plan().share("Embed", 1.0) == pytest.approx(1.0 - 0.03 - 0.01 - 0.1 - 0.02)
    assert plan().share("Count", 1.0) == pytest.approx(1.0 - 0.1 - 0.02)
    assert plan().share("GenerateStream", 1.0) == pytest.approx(1.0 - 0.02)


def test_for_a_step_that_may_be_left_out_nothing_is_kept_free() -> None:
    steps = {"Search": 0.03, "Rerank": 0.15, "Count": 0.01}
    it = Plan(steps, reply_seconds=0.02, substitute_after=5.0, optional=["Rerank"])
    assert it.share("Search", 1.0) == pytest.approx(1.0 - 0.01 - 0.02)
    assert it.share("Rerank", 1.0) == pytest.approx(1.0 - 0.01 - 0.02)
    assert it.is_short_for("Rerank", 0.17)
    assert not it.is_short_for("Rerank", 0.19)
    it.answered("Rerank", 0.5)
    assert it.is_short_for("Rerank", 0.5)


def test_a_call_that_is_no_step_comes_before_all() -> None:
    assert plan().share("GetCollection", 1.0) == pytest.approx(1.0 - 0.16 - 0.02)


def test_later_calls_need_what_they_took_of_late_and_never_less_than_their_floors() -> None:
    it = plan()
    it.answered("GenerateStream", 0.4)
    it.answered("Search", 0.001)
    it.answered("GetCollection", 9.0)
    assert it.share("Embed", 1.0) == pytest.approx(1.0 - 0.03 - 0.01 - 0.4 - 0.02)


def test_time_is_kept_free_for_the_model_that_is_wanted_by_its_own_calls() -> None:
    it = plan()
    it.answered("GenerateStream", 0.4, "large")
    it.answered("GenerateStream", 0.2, "small")
    it.answered("Search", 0.05)
    kept_free = {
        model: 1.0 - it.share("Embed", 1.0, model) - 0.05 - 0.01 - 0.02
        for model in ("large", "small", "never heard of")
    }
    expected = {"large": 0.4, "small": 0.2, "never heard of": 0.1}
    assert kept_free == pytest.approx(expected)
    assert it.is_short_after("Embed", 0.4, "large")
    assert not it.is_short_after("Embed", 0.4, "small")


def test_of_too_many_models_those_that_answered_most_recently_are_known() -> None:
    it = plan()
    for number in range(2 * MODELS):
        it.answered("GenerateStream", 0.4, f"model {number}")
        it.answered("GenerateStream", 0.3, "in use")
        it.answered("Search", 0.05)
    assert it.needed("GenerateStream", "model 0") == 0.1
    assert it.needed("GenerateStream", f"model {2 * MODELS - 1}") == 0.4
    assert it.needed("GenerateStream", "in use") == 0.3
    assert it.needed("Search") == 0.05


def test_a_call_gets_half_of_what_remains_however_slow_later_ones_are() -> None:
    it = plan()
    it.answered("GenerateStream", 20.0)
    assert it.share("Embed", 0.8) == pytest.approx(0.4)


def test_a_call_with_a_substitute_is_not_waited_for_as_long_as_there_is_time() -> None:
    assert plan().share("Embed", 30.0, replaceable=True) == 5.0
    assert plan().share("Embed", 30.0) > 29
    assert plan().share("Embed", 0.5, replaceable=True) == plan().share("Embed", 0.5)


def test_a_stream_that_may_be_replaced_leaves_time_for_another() -> None:
    assert plan().first_share("GenerateStream", 1.0) == pytest.approx(1.0 - 0.1 - 0.02)
    assert plan().first_share("GenerateStream", 0.1) == pytest.approx(0.05)


def test_time_is_short_where_a_step_would_not_fit() -> None:
    it = plan()
    assert not it.is_short("Search", 0.06)
    assert it.is_short("Search", 0.04)
    assert not it.is_short_after("Embed", 0.17)
    assert it.is_short_after("Embed", 0.15)


@given(
    st.floats(1e-6, 100),
    st.sampled_from([*FLOORS, "GetCollection"]),
    st.lists(st.tuples(st.sampled_from([*FLOORS]), st.floats(0, 60)), max_size=20),
)
def test_a_share_is_never_nothing_and_never_more_than_remains(
    remaining: float, method: str, took: list[tuple[str, float]]
) -> None:
    it = plan()
    for other, seconds in took:
        it.answered(other, seconds)
    assert 0 < it.share(method, remaining) <= remaining
    assert 0 < it.first_share(method, remaining) <= remaining
