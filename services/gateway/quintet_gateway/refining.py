"""What is done with the hits of a search before the best of them are taken.

Pure functions over what was found; `refiner.py` has the one step that is a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.diversity import by_marginal_relevance
from quintet_gateway.near_duplicates import near_duplicates
from quintet_gateway.neighbours import merged

Hits = Sequence[retriever_pb.Hit]

MAX_CANDIDATES = 200
"""Hits that are found at most: as many as the retriever returns."""


@dataclass(frozen=True, slots=True)
class RefiningLimits:
    """See the settings of the same names."""

    refine_candidates: int
    merged_tokens: int


def candidates(refinement: pb.Refinement, wanted: int, limits: RefiningLimits) -> int:
    """Return how many hits to find for a refinement that leaves `wanted` of them."""
    if refinement == pb.Refinement(candidates=refinement.candidates):
        return wanted
    asked = refinement.candidates or max(limits.refine_candidates, 2 * wanted)
    return min(max(wanted, asked), MAX_CANDIDATES)


def may_find_more(refinement: pb.Refinement, found: int) -> bool:
    """Whether more hits than `found` may be looked for where too few are left of them: as
    many as a request names are all, and to rerank two hundred takes too long."""
    return found < MAX_CANDIDATES and not refinement.candidates and not refinement.rerank


def refined(hits: Hits, refinement: pb.Refinement, wanted: int, limits: RefiningLimits) -> Hits:
    """Return at most `wanted` passages made of `hits`, which come best first; the first
    one is, or holds, the first hit."""
    if refinement.HasField("collapse_similarity"):
        repeats = near_duplicates([hit.text for hit in hits], refinement.collapse_similarity)
        hits = [hit for index, hit in enumerate(hits) if index not in repeats]
    if refinement.HasField("mmr_lambda"):
        order = by_marginal_relevance(
            [hit.score for hit in hits], [hit.text for hit in hits], refinement.mmr_lambda
        )
        hits = [hits[index] for index in order]
    return _gathered(
        hits,
        wanted,
        max_per_document=refinement.max_per_document or wanted,
        merged_tokens=limits.merged_tokens if refinement.merge_neighbours else 0,
    )


def _gathered(hits: Hits, wanted: int, *, max_per_document: int, merged_tokens: int) -> Hits:
    """Take hits until there are `wanted` passages. One that is merged into a passage takes
    no place of its own, nor one of its document's."""
    passages: list[retriever_pb.Hit] = []
    for hit in hits:
        if len(passages) == wanted:
            break
        joined = _joined(passages, hit, merged_tokens) if merged_tokens else None
        if joined is not None:
            passages = joined
        elif sum(it.document_id == hit.document_id for it in passages) < max_per_document:
            passages.append(hit)
    return passages


def _joined(
    passages: Hits, hit: retriever_pb.Hit, merged_tokens: int
) -> list[retriever_pb.Hit] | None:
    """Return the passages with `hit` merged into the best of its neighbours; None where it
    has none."""
    for place, passage in enumerate(passages):
        whole = merged(passage, hit, merged_tokens)
        if whole is None:
            continue
        later = []
        for other in passages[place + 1 :]:
            # The hit may close the gap to another passage.
            both = merged(whole, other, merged_tokens)
            if both is None:
                later.append(other)
            else:
                whole = both
        return [*passages[:place], whole, *later]
    return None
