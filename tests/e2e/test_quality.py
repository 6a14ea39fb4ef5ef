"""A cut of the evaluation, with bounds that a broken ranking misses and noise does not."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

from support.evaluation import evaluation_set, needs_evaluation_data
from support.gateway import gateway_stub
from support.stack import TestStack

from evaluation.asking import Question, Way, answers, asked
from evaluation.scoring import score
from evaluation.sets import load
from evaluation.through_gateway import MODES, ingested, run_of
from quintet.gateway.v1 import gateway_service_pb2 as pb


@needs_evaluation_data
async def test_every_mode_finds_the_paragraph_that_a_question_was_written_for(
    stack: TestStack,
) -> None:
    found = load(evaluation_set("xquad32-dev"))
    queries = dict(islice(found.queries.items(), 0, None, 8))
    judgements = {query: found.judgements[query] for query in queries}
    async with gateway_stub(stack.gateway) as stub, ingested(stub, found.documents) as name:
        scores = {
            mode: score(judgements, await run_of(stub, name, queries, mode)).means for mode in MODES
        }
    # All 838 questions measure .94 to .97; these are 105.
    assert min(it["ndcg@10"] for it in scores.values()) > 0.87
    assert min(it["recall@100"] for it in scores.values()) > 0.97


async def test_answers_are_kept_with_what_they_cite_and_not_asked_for_again(
    stack: TestStack, tmp_path: Path
) -> None:
    kept, far = tmp_path / "answers.jsonl", time.monotonic() + 60
    text = "The garden lies behind the house. Bees live in the garden."
    corpora = {"asked-garden": [pb.Document(id="garden", content=text)]}
    question = Question("garden", "asked-garden", "q", "Where does the garden lie?")
    wanted = [(Way("extractive"), question)]
    async with gateway_stub(stack.gateway) as stub:
        (answer,) = await asked(stub, wanted, corpora, kept, far)
        assert "behind the house" in answer.text
        assert ("garden", 0, 33) in answer.cited
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name="asked-garden"))
    # A stack of its own would be needed for what is not kept.
    (again,) = await answers(wanted, {}, kept, far, tmp_path)
    assert (again.question, again.text) == (answer.question, answer.text)
