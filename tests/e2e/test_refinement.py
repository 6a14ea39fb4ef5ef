"""What is found is refined as the request asks, through five real processes."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.stack import TestStack

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

CONTENTS = {name: topics[name] for name in ("with", "try", "assert", "pass", "global")}
CONTENTS["assert again"] = topics["assert"] + "\nThat is all.\n"
DOCUMENTS = [pb.Document(id=id_, content=text) for id_, text in CONTENTS.items()]
WANTED = "What does the with statement do when an exception occurs?"


def search(collection: str, refinement: pb.Refinement | None, **fields: Any) -> pb.SearchRequest:
    return pb.SearchRequest(collection=collection, query=WANTED, refinement=refinement, **fields)


async def test_neighbours_become_passages_of_the_documents_own_characters(
    stack: TestStack,
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        apart = await stub.Search(search(name, None, k=20))
        merged = await stub.Search(search(name, pb.Refinement(merge_neighbours=True), k=5))
    assert not merged.degradations
    passages = [it for it in merged.hits if it.merged_chunks]
    assert passages
    chunks = {(it.document_id, it.chunk_index): it for it in apart.hits}
    for passage in passages:
        document = passage.document_id
        assert passage.text == CONTENTS[document][passage.start : passage.end]
        indices = [passage.chunk_index, *passage.merged_chunks]
        parts = [chunks[document, it] for it in indices if (document, it) in chunks]
        assert all(passage.start <= it.start < it.end <= passage.end for it in parts)
        assert passage.tokens <= 512
    assert merged.hits[0].chunk_index == apart.hits[0].chunk_index


async def test_a_document_has_no_more_passages_than_are_allowed_and_repeats_are_dropped(
    stack: TestStack,
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        plain = await stub.Search(search(name, None))
        capped = await stub.Search(search(name, pb.Refinement(max_per_document=1)))
        query = "What is inserted for debugging assertions?"
        request = pb.SearchRequest(collection=name, query=query, k=3)
        both = [it.text for it in (await stub.Search(request)).hits]
        request.refinement.collapse_similarity = 0.7
        one = [it.text for it in (await stub.Search(request)).hits]
    documents = [it.document_id for it in capped.hits]
    assert len(set(documents)) == len(documents) >= 2
    assert len({it.document_id for it in plain.hits}) < len(plain.hits)
    assert capped.hits[0] == plain.hits[0]
    assert len(set(both)) < len(both)
    assert len(set(one)) == len(one) == 3


async def test_a_cap_takes_documents_beyond_one_that_has_all_the_best_hits(
    stack: TestStack,
) -> None:
    about = "The with statement and exceptions that occur in it, once more. "
    long = pb.Document(id="long", content="\n\n".join(f"{about * 6}{it}" for it in range(40)))
    others = [pb.Document(id=str(it), content=f"Bread number {it}.") for it in range(5)]
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [long, *others]) as name:
        fields = {"k": 4, "mode": retriever_pb.SEARCH_MODE_DENSE}
        capped = await stub.Search(search(name, pb.Refinement(max_per_document=1), **fields))
        named = pb.Refinement(max_per_document=1, candidates=8)
        few = await stub.Search(search(name, named, **fields))
        all_of = pb.Refinement(max_per_document=1, candidates=200)
        fields["k"] = 6
        enough = await stub.Search(search(name, all_of, **fields))
        fields["k"] = 7
        none_left = await stub.Search(search(name, all_of, **fields))
    documents = [it.document_id for it in capped.hits]
    assert documents[0] == "long"
    assert (len(set(documents)), capped.exhausted) == (4, False)
    assert [it.document_id for it in few.hits] == ["long"] and not few.exhausted
    # All chunks were looked at: only where hits are missing does it matter that none is left.
    assert (len(enough.hits), enough.exhausted) == (6, False)
    assert (len(none_left.hits), none_left.exhausted) == (6, True)


async def test_a_reranking_is_a_hop_and_orders_by_its_own_score(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        response = await stub.Search(search(name, pb.Refinement(rerank=True), k=5))
    assert [it.method for it in response.trail.hops][-2:] == ["Search", "Rerank"]
    assert not response.degradations
    scores = [it.scores.rerank for it in response.hits]
    assert scores == [it.score for it in response.hits] == sorted(scores, reverse=True)
    assert len(scores) == 5
    assert -1 <= scores[-1] < scores[0] <= 1


async def test_without_the_embedder_a_reranking_is_left_out_and_told(stack: TestStack) -> None:
    refinement = pb.Refinement(rerank=True, max_per_document=1)
    lexical = retriever_pb.SEARCH_MODE_LEXICAL
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        request = search(name, refinement, mode=lexical)
        healthy = await stub.Search(request)
        stack.stop("embedder")
        try:
            degraded = await stub.Search(request, timeout=5)
            request.fail_if_degraded = True
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Search(request, timeout=5)
        finally:
            stack.start("embedder")
        # Of the same twenty.
        capped = pb.Refinement(max_per_document=1, candidates=20)
        plain = await stub.Search(search(name, capped, mode=lexical))
    assert not healthy.degradations
    [told] = degraded.degradations
    assert (told.hop, told.substitute) == ("reranking", pb.SUBSTITUTE_STEP_SKIPPED)
    assert degraded.hits == plain.hits
    assert reason(caught.value) in {"DEPENDENCY_UNAVAILABLE", "CIRCUIT_OPEN", "NOT_READY"}


async def test_a_refined_answer_is_kept_apart_and_revalidated_by_all_that_was_found(
    stack: TestStack,
) -> None:
    refinement = pb.Refinement(rerank=True, candidates=15, merge_neighbours=True)
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        request = pb.AskRequest(
            collection=name,
            question=WANTED,
            passages=6,
            # The score of a word depends on all documents, that of a vector on its own alone.
            mode=retriever_pb.SEARCH_MODE_DENSE,
            abstain_below=0,
        )
        plain = await stub.Ask(request)
        request.refinement.CopyFrom(refinement)
        made = await stub.Ask(request)
        kept = await stub.Ask(request)
        unrelated = pb.Document(id="bees", content="Bees make honey.")
        [written] = await ingest(stub, name, [unrelated])
        fresh = retriever_pb.Consistency(at_least_as_fresh=written.ingested.consistency_token)
        request.consistency.CopyFrom(fresh)
        held = await stub.Ask(request)
        related = pb.Document(id="new", content=f"{WANTED} The with statement calls __exit__.")
        [written] = await ingest(stub, name, [related])
        request.consistency.at_least_as_fresh = written.ingested.consistency_token
        anew = await stub.Ask(request)
    assert made.cache.use.outcome == cache_pb.CACHE_OUTCOME_MISS
    assert kept.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT
    assert (held.answer, held.passages) == (kept.answer, kept.passages)
    assert held.cache.use.outcome == cache_pb.CACHE_OUTCOME_REVALIDATED
    assert "new" in {it.hit.document_id for it in anew.passages}
    assert any(it.hit.merged_chunks for it in made.passages)
    assert not any(it.hit.merged_chunks for it in plain.passages)
    for citation in made.citations:
        passage = made.passages[citation.passage - 1].hit
        content = CONTENTS[passage.document_id]
        assert passage.text == content[passage.start : passage.end]
        source = content[citation.document_start : citation.document_end]
        said = made.answer[citation.answer_start : citation.answer_end]
        assert citation.support < 1 or " ".join(source.split()) == " ".join(said.split())
    assert made.citations


@pytest.mark.parametrize(
    "refinement",
    [
        pb.Refinement(candidates=201),
        pb.Refinement(collapse_similarity=1.1),
        pb.Refinement(mmr_lambda=float("nan")),
    ],
)
async def test_a_refinement_outside_its_bounds_is_refused(
    stack: TestStack, refinement: pb.Refinement
) -> None:
    async with gateway_stub(stack.gateway) as stub:
        for call, request in (
            (stub.Search, search("any", refinement)),
            (stub.Ask, pb.AskRequest(collection="any", question="?", refinement=refinement)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert reason(caught.value) == "INVALID_FIELD"
            assert "refinement." in (caught.value.details() or "")
