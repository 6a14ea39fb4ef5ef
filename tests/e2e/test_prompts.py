"""Templates that are tried, questions that are routed, and ratings, as callers meet them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, new_collection, reason
from support.replica import database_variables, second_gateway
from support.stack import TestStack
from support.tenants import gateway_metadata

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import feedback_service_pb2 as feedback_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.explain_service_pb2_grpc import ExplainServiceStub
from quintet.gateway.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from quintet_cli.__main__ import main

BEES = pb.Document(
    id="bees", content="The bees of the old monastery make dark honey from the heather in August."
)
WASPS = pb.Document(id="wasps", content="Wasps are predators of other insects.")
EASY = "What do the bees of the old monastery make from the heather in August?"
HARD = "Are bees predators?"
MODEL = "smollm2-135m-instruct"
POLICY = {
    "routing": {"easy": "extractive", "hard": MODEL, "threshold": 0.8},
    "templates": {"answer-full": 50},
    "tenants": {"plain": {"routing": False, "templates": {}}},
}


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


def ask(collection: str, question: str, **fields: Any) -> pb.AskRequest:
    return pb.AskRequest(
        collection=collection, question=question, abstain_below=0, max_tokens=8, **fields
    )


async def test_a_policy_routes_and_tries_templates_and_a_request_goes_before_it(
    stack: TestStack, stub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        name.removeprefix("QUINTET_GATEWAY_"): value
        for name, value in database_variables(stack, "gateway").items()
    }
    async with (
        new_collection(stub, [BEES, WASPS]) as name,
        second_gateway(stack, LIMITS__POLICY=json.dumps(POLICY), **variables) as address,
        gateway_stub(address) as routed,
    ):
        easy = await routed.Ask(ask(name, EASY))
        assert (easy.model, easy.routing.model, easy.routing.easy) == ("extractive",) * 2 + (True,)
        assert easy.routing.ease >= easy.routing.threshold == 0.8
        assert [it.name for it in easy.routing.features] == ["sentence", "words", "documents"]

        kept = await routed.Ask(ask(name, EASY))
        assert kept.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT
        assert (kept.routing, kept.template) == (easy.routing, easy.template)
        record = await explained(address, kept.answer_id)
        assert (record.routing, record.template_revision) == (
            easy.routing,
            easy.template_revision,
        )

        status = await asyncio.to_thread(main, ["explain", "--address", address, kept.answer_id])
        told = " ".join(capsys.readouterr().out.split())
        assert status == 0
        assert f"routed easy: {easy.routing.ease:.2f} ≥ 0.80 (sentence " in told

        events = [it async for it in routed.AskStream(ask(name, HARD))]
        hard = events[-1].completed
        assert (hard.model, hard.routing.easy) == (MODEL, False)

        named = await routed.Ask(ask(name, HARD, model="extractive", template="answer"))
        assert (named.model, named.template) == ("extractive", "answer")
        assert not named.HasField("routing")

        # Of a unit all questions have one template; of many units some have another.
        assert {
            (await routed.Ask(ask(name, question, trial_unit="ann", model="extractive"))).template
            for question in (EASY, HARD, "What are wasps?", "Who makes honey?")
        } in ({"answer"}, {"answer-full"})
        templates = {
            (await routed.Ask(ask(name, EASY, trial_unit=f"user {i}", model="extractive"))).template
            for i in range(12)
        }
        assert templates == {"answer", "answer-full"}

        unknown = ask(name, EASY, template="no-such-template")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await routed.Ask(unknown)
        assert reason(caught.value) == "TEMPLATE_NOT_FOUND"


async def explained(address: str, answer_id: str) -> explain_pb.AnswerRecord:
    async with grpc.aio.insecure_channel(address) as channel:
        call = ExplainServiceStub(channel).Explain
        response = await call(explain_pb.ExplainRequest(answer_id=answer_id))
        assert isinstance(response, explain_pb.ExplainResponse)
        return response.record


async def quintet(
    stack: TestStack, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Run `quintet feedback`; return its exit status and what it printed."""
    options = ("--address", stack.gateway)
    status = await asyncio.to_thread(main, ["feedback", arguments[0], *options, *arguments[1:]])
    printed = capsys.readouterr()
    return status, printed.out or printed.err


async def test_ratings_are_told_by_template_and_model(
    stack: TestStack, stub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with new_collection(stub, [BEES]) as name:
        short = await stub.Ask(ask(name, EASY))
        full = await stub.Ask(ask(name, EASY, template="answer-full"))
        assert short.template_revision != full.template_revision
        status, told = await quintet(stack, capsys, "rate", full.answer_id, "--down")
        assert (status, told) == (0, f"{full.answer_id} is rated 1.\n")
        status, told = await quintet(stack, capsys, "rate", "--last", "--score", "4")
        assert (status, told) == (
            0,
            f"{full.answer_id} is rated 4, in place of the rating before.\n",
        )
        for rater in ("ann", "bob"):
            arguments = (short.answer_id, "--up", "--rater", rater, "--comment", "Good.")
            status, told = await quintet(stack, capsys, "rate", *arguments)
            assert status == 0

        status, told = await quintet(stack, capsys, "report", "-c", name, "--json")
        assert status == 0
        first, second = json.loads(told)["templates"]
        assert (first["template"], first["model"]) == ("answer", "extractive")
        assert first["template_revision"] == short.template_revision
        assert [int(it) for it in first["counts"]] == [0, 0, 0, 0, 2]
        assert (second["template"], second["mean"]) == ("answer-full", 4.0)
        status, told = await quintet(stack, capsys, "report", "-c", name)
        assert "100% (34% to 100%)" in told
        status, _ = await quintet(stack, capsys, "rate", "--up")
        assert status == 2


async def test_another_tenant_cannot_rate_an_answer_or_see_its_ratings(
    stack: TestStack, stub: Any
) -> None:
    async with (
        new_collection(stub, [BEES]) as name,
        grpc.aio.insecure_channel(stack.gateway) as channel,
    ):
        feedback = FeedbackServiceStub(channel)
        answer = await stub.Ask(ask(name, EASY))
        await feedback.RateAnswer(
            feedback_pb.RateAnswerRequest(answer_id=answer.answer_id, thumbs_up=True)
        )
        stranger = [gateway_metadata("stranger")]
        told = set()
        for answer_id in (answer.answer_id, "01a20564-97bc-734e-9cf1-5eea2be379c8"):
            request = feedback_pb.RateAnswerRequest(answer_id=answer_id, score=1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await feedback.RateAnswer(request, metadata=stranger)
            told.add((reason(caught.value), caught.value.details()))
        assert told == {("ANSWER_NOT_FOUND", "there is no record of that answer")}
        report = await feedback.GetFeedback(feedback_pb.GetFeedbackRequest(), metadata=stranger)
        assert not report.templates
