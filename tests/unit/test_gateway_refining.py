"""What is done with the hits of a search before the best are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.clients import Services
from quintet_gateway.degradation import Degradations
from quintet_gateway.diversity import by_marginal_relevance
from quintet_gateway.neighbours import merged
from quintet_gateway.refiner import Refiner
from quintet_gateway.refining import RefiningLimits, candidates, refined
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor

LIMITS = RefiningLimits(refine_candidates=20, merged_tokens=12)
CONTENT = "Bees make honey. A bee is an insect. Ünder the hive 🐝 they dance! Wax is made of honey."
"""Content of every document; parts of it repeat, so that wrong joins would show."""


def hit(start: int, end: int, document: str = "a", score: float = 0.0) -> retriever_pb.Hit:
    return retriever_pb.Hit(
        document_id=document,
        document_version=1,
        chunk_index=start,
        text=CONTENT[start:end],
        start=start,
        end=end,
        tokens=max(1, (end - start) // 6),
        score=score,
    )


@st.composite
def found(draw: st.DrawFn) -> list[retriever_pb.Hit]:
    places = st.tuples(st.sampled_from("abc"), st.integers(0, len(CONTENT) - 1), st.integers(1, 30))
    chosen = draw(st.lists(places, min_size=1, max_size=12, unique_by=lambda it: it[:2]))
    scores = sorted(draw(st.lists(st.floats(-1, 1), min_size=12, max_size=12)), reverse=True)
    return [
        hit(start, min(len(CONTENT), start + length), document, score)
        for (document, start, length), score in zip(chosen, scores, strict=False)
    ]


REFINEMENTS = st.builds(
    pb.Refinement,
    collapse_similarity=st.none() | st.floats(0, 1),
    mmr_lambda=st.none() | st.floats(0, 1),
    max_per_document=st.integers(0, 3),
    merge_neighbours=st.booleans(),
)


@given(hits=found(), refinement=REFINEMENTS, wanted=st.integers(1, 12))
def test_the_best_hit_comes_first_and_all_bounds_are_kept(
    hits: list[retriever_pb.Hit], refinement: pb.Refinement, wanted: int
) -> None:
    passages = refined(hits, refinement, wanted, LIMITS)
    assert 1 <= len(passages) <= wanted
    first, best = passages[0], hits[0]
    assert (first.document_id, first.chunk_index) == (best.document_id, best.chunk_index)
    assert first.start <= best.start < best.end <= first.end
    documents = [it.document_id for it in passages]
    if refinement.max_per_document:
        assert max(map(documents.count, documents)) <= refinement.max_per_document
    most = LIMITS.merged_tokens
    assert all(it.tokens <= most for it in passages if it.merged_chunks)
    assert list(passages) == list(refined(hits, refinement, wanted, LIMITS))


@given(hits=found(), refinement=REFINEMENTS, wanted=st.integers(1, 12))
def test_a_passage_is_its_documents_own_characters_and_no_chunk_is_in_two(
    hits: list[retriever_pb.Hit], refinement: pb.Refinement, wanted: int
) -> None:
    passages = refined(hits, refinement, wanted, LIMITS)
    assert all(it.text == CONTENT[it.start : it.end] for it in passages)
    chunks = [
        (it.document_id, index) for it in passages for index in (it.chunk_index, *it.merged_chunks)
    ]
    assert len(set(chunks)) == len(chunks)
    assert set(chunks) <= {(it.document_id, it.chunk_index) for it in hits}
    if not refinement.merge_neighbours:
        assert not any(it.merged_chunks for it in passages)


@given(hits=found(), wanted=st.integers(1, 12))
def test_without_a_step_the_best_hits_are_left_as_they_are(
    hits: list[retriever_pb.Hit], wanted: int
) -> None:
    assert list(refined(hits, pb.Refinement(), wanted, LIMITS)) == hits[:wanted]


@given(hits=found())
def test_by_relevance_alone_the_order_stays(hits: list[retriever_pb.Hit]) -> None:
    assert list(refined(hits, pb.Refinement(mmr_lambda=1), 12, LIMITS)) == hits


@pytest.mark.parametrize(
    ("better", "other"),
    [((20, 30), (8, 22)), ((8, 20), (20, 30)), ((8, 30), (10, 20)), ((10, 20), (8, 30))],
)
def test_neighbours_that_overlap_touch_or_enclose_each_other_become_one(
    better: tuple[int, int], other: tuple[int, int]
) -> None:
    whole = merged(hit(*better), hit(*other), 12)
    assert whole is not None
    assert (whole.start, whole.end, whole.text) == (8, 30, CONTENT[8:30])
    assert (whole.chunk_index, list(whole.merged_chunks)) == (better[0], [other[0]])
    assert whole.tokens == hit(*better).tokens + hit(*other).tokens


def test_chunks_with_a_gap_of_other_documents_or_too_long_stay_apart() -> None:
    assert merged(hit(0, 10), hit(11, 20), 12) is None
    assert merged(hit(0, 10), hit(5, 20, "b"), 12) is None
    assert merged(hit(0, 40), hit(30, 80), 12) is None
    older = hit(5, 20)
    older.document_version = 2
    assert merged(hit(0, 10), older, 12) is None


def test_chunks_that_are_no_stretch_of_their_document_stay_apart() -> None:
    other = hit(5, 20)
    other.text = "something else!"
    assert merged(hit(0, 10), other, 12) is None
    other.text += " and longer"
    assert merged(hit(0, 5), other, 12) is None


def test_a_chunk_that_closes_a_gap_joins_both_sides_at_the_better_place() -> None:
    hits = [hit(0, 10), hit(40, 50, "b"), hit(20, 30), hit(10, 20)]
    refinement = pb.Refinement(merge_neighbours=True)
    first, second = refined(hits, refinement, 5, LIMITS)
    assert (first.start, first.end, list(first.merged_chunks)) == (0, 30, [10, 20])
    assert second == hits[1]


def test_diversity_prefers_what_has_not_been_said() -> None:
    texts = ["bees make honey", "honey that bees make", "wax is sold in towns", "towns grow"]
    scores = [1.0, 0.9, 0.5, 0.1]
    assert by_marginal_relevance(scores, texts, 1.0) == [0, 1, 2, 3]
    assert by_marginal_relevance(scores, texts, 0.4)[:2] == [0, 2]


@pytest.mark.parametrize(
    ("refinement", "wanted", "expected"),
    [
        (pb.Refinement(), 5, 5),
        (pb.Refinement(candidates=50), 5, 5),
        (pb.Refinement(rerank=True), 5, 20),
        (pb.Refinement(rerank=True), 30, 60),
        (pb.Refinement(rerank=True), 150, 200),
        (pb.Refinement(mmr_lambda=0.5, candidates=50), 5, 50),
        (pb.Refinement(merge_neighbours=True, candidates=5), 10, 10),
    ],
)
def test_a_refinement_finds_more_than_it_leaves_within_bounds(
    refinement: pb.Refinement, wanted: int, expected: int
) -> None:
    assert candidates(refinement, wanted, LIMITS) == expected


class RerankingChain:
    """A chain whose one call reverses the passages, or fails."""

    def __init__(
        self, error: ServiceError | None = None, *, short: bool = False, forbidden: bool = False
    ) -> None:
        self.degradations = Degradations(forbidden=forbidden)
        self._error = error
        self._short = short

    def is_short_for(self, method: str) -> bool:
        return self._short

    async def unary(self, *call: Any, **_: Any) -> embedder_pb.RerankResponse:
        assert not self._short
        if self._error:
            raise self._error
        count = len(call[-1].passages)
        return embedder_pb.RerankResponse(
            results=[
                embedder_pb.RankedPassage(index=index, score=index / count)
                for index in reversed(range(count))
            ]
        )


SERVICES = cast(
    Services,
    SimpleNamespace(embedder=SimpleNamespace(Rerank=None), peer=lambda _: None),
)
AWAY = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away")


async def reranked(chain: RerankingChain, wanted: int = 2) -> Any:
    executor = BoundedExecutor("test", threads=1, queue=1)
    hits = [hit(0, 10), hit(20, 30), hit(40, 50)]
    refiner = Refiner(SERVICES, LIMITS, executor)
    try:
        return await refiner.refined(
            cast(Any, chain), "bees", hits, pb.Refinement(rerank=True), wanted
        )
    finally:
        await executor.close()


async def test_a_reranking_orders_anew_and_its_score_is_told() -> None:
    chain = RerankingChain()
    passages = await reranked(chain)
    assert [it.start for it in passages] == [40, 20]
    assert passages[0].score == passages[0].scores.rerank == pytest.approx(2 / 3)
    assert not chain.degradations.messages


@pytest.mark.parametrize("chain", [RerankingChain(AWAY), RerankingChain(short=True)])
async def test_a_reranking_that_fails_or_has_no_time_is_passed_over_and_told(
    chain: RerankingChain,
) -> None:
    assert [it.start for it in await reranked(chain)] == [0, 20]
    [degradation] = chain.degradations.messages
    assert (degradation.hop, degradation.substitute) == ("reranking", pb.SUBSTITUTE_STEP_SKIPPED)


@pytest.mark.parametrize(
    "chain", [RerankingChain(AWAY, forbidden=True), RerankingChain(short=True, forbidden=True)]
)
async def test_a_reranking_is_not_passed_over_where_that_is_forbidden(
    chain: RerankingChain,
) -> None:
    with pytest.raises(ServiceError):
        await reranked(chain)
