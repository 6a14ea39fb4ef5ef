from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.cache.v1.cache_service_pb2 import CacheOutcome, CacheUse
from quintet.gateway.v1.gateway_service_pb2 import AnswerCache, Usage
from quintet_cli import cache_use


def _kept(outcome: CacheOutcome.ValueType, *, possibly_stale: bool = False) -> AnswerCache:
    use = CacheUse(outcome=outcome, age=Duration(seconds=185))
    return AnswerCache(use=use, possibly_stale=possibly_stale)


STALE = (
    "POSSIBLY OUT OF DATE: kept 3 min ago, and whether it still holds is not known; "
    "--fresh makes sure"
)


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        (_kept(cache_pb.CACHE_OUTCOME_HIT), "kept 3 min ago, still holds"),
        (
            _kept(cache_pb.CACHE_OUTCOME_REVALIDATED),
            "kept 3 min ago, found to hold by the database",
        ),
        (_kept(cache_pb.CACHE_OUTCOME_STALE), STALE),
        (_kept(cache_pb.CACHE_OUTCOME_HIT, possibly_stale=True), STALE),
        (
            _kept(cache_pb.CACHE_OUTCOME_SHARED),
            "shared with another caller, who was asking the same",
        ),
    ],
)
def test_an_answer_that_was_not_made_for_its_request_tells_where_it_is_from(
    cache: AnswerCache, told: str
) -> None:
    origin = cache_use.origin(cache)
    assert origin is not None
    assert origin.plain == told


@pytest.mark.parametrize(
    "outcome", [cache_pb.CACHE_OUTCOME_MISS, cache_pb.CACHE_OUTCOME_BYPASS, 0, 99]
)
def test_of_an_answer_of_its_own_nothing_is_told(outcome: CacheOutcome.ValueType) -> None:
    assert cache_use.origin(_kept(outcome)) is None


def test_time_and_tokens_that_were_saved_are_told_and_estimates_as_such() -> None:
    use = CacheUse(outcome=CacheOutcome.CACHE_OUTCOME_HIT, saved=Duration(nanos=80_000_000))
    spared = Usage(prompt_tokens=200, completion_tokens=9, embedding_tokens=6)
    assert cache_use.saved(AnswerCache(use=use, saved=spared)) == "80 ms and 215 tokens"
    spared.estimated = True
    assert cache_use.saved(AnswerCache(saved=spared)) == "about 215 tokens"
    assert cache_use.saved(AnswerCache()) == ""


def test_another_question_is_told_on_one_line_without_control_characters() -> None:
    cache = AnswerCache(question="What\n is \x1b[2Jit?", similarity=0.968)
    told = "What is \N{REPLACEMENT CHARACTER}[2Jit? (similarity 0.97)"
    assert cache_use.other_question(cache) == told
    assert cache_use.other_question(AnswerCache()) == ""


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (CacheUse(), ""),
        (
            CacheUse(
                tier="l2",
                outcome=cache_pb.CACHE_OUTCOME_HIT,
                age=Duration(seconds=7),
                lookups=1,
                hits=1,
            ),
            "l2 hit 1/1, 7 s",
        ),
        (
            CacheUse(tier="l2", outcome=cache_pb.CACHE_OUTCOME_MISS, lookups=32, hits=31),
            "l2 miss 31/32",
        ),
        (CacheUse(tier="completions", outcome=cache_pb.CACHE_OUTCOME_BYPASS), "completions bypass"),
    ],
)
def test_what_a_hops_cache_did_is_a_few_words(use: CacheUse, told: str) -> None:
    assert cache_use.hop(use) == told
