"""What is recorded of an answer, whatever became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.replica import database_variables, second_gateway
from support.stack import TestStack

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.explain_service_pb2_grpc import ExplainServiceStub
from quintet_cli.__main__ import main
from quintet_servicekit.errors import from_rpc_error

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
WANTED = "What do bees make?"


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


async def explained(address: str, answer_id: str) -> explain_pb.AnswerRecord:
    async with grpc.aio.insecure_channel(address) as channel:
        call = ExplainServiceStub(channel).Explain
        response = await call(explain_pb.ExplainRequest(answer_id=answer_id))
        assert isinstance(response, explain_pb.ExplainResponse)
        return response.record


def ask(collection: str, **fields: Any) -> pb.AskRequest:
    return pb.AskRequest(**({"collection": collection, "question": WANTED} | fields))


def is_as_told(record: explain_pb.AnswerRecord, response: pb.AskResponse) -> bool:
    return (
        record.answer_id == response.answer_id
        and record.trail == response.trail
        and record.cache == response.cache
        and record.usage == response.usage
        and record.bill == response.bill
        and record.answer == response.answer
        and (record.model, record.model_revision, record.prompt_revision)
        == (response.model, response.model_revision, response.prompt_revision)
        and [it.document_id for it in record.passages]
        == [it.hit.document_id for it in response.passages]
        and list(record.degradations) == list(response.degradations)
    )


async def test_a_new_answer_and_a_kept_one_are_explained(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, [BEES]) as name:
        cold, kept = [await stub.Ask(ask(name)) for _ in range(2)]
        first, second = [await explained(stack.gateway, it.answer_id) for it in (cold, kept)]
    assert cold.answer_id != kept.answer_id
    assert is_as_told(first, cold)
    assert is_as_told(second, kept)
    embed = next(hop for hop in first.trail.hops if hop.method == "Embed")
    assert embed.breaker == pb.BREAKER_STATE_CLOSED
    assert 0 < embed.duration.ToNanoseconds() <= embed.budget.ToNanoseconds()
    assert embed.left.ToNanoseconds() > 0
    assert second.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT
    assert not second.trail.hops
    passage = first.passages[0]
    assert (passage.document_version, passage.chunk_index, passage.citations > 0) == (1, 0, True)
    assert passage.scores.HasField("dense")
    assert first.thresholds.abstain_below == first.abstention.threshold
    assert len(first.prompt_hash) == len(first.answer_hash) == 64
    assert first.embedding_revision
    assert second.prompt_hash == first.prompt_hash
    assert first.request.passages == 5


async def test_a_stream_is_explained_and_one_that_was_left(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, [BEES]) as name:
        events = [it async for it in stub.AskStream(ask(name, cache=pb.CACHE_POLICY_NONE))]
        record = await explained(stack.gateway, events[-1].completed.answer_id)
        assert record.streamed
        assert record.answer == "".join(it.text_delta.text for it in events)
        assert list(record.sentences) == [it.sentence for it in events if it.HasField("sentence")]

        left = stub.AskStream(ask(name, question="Is honey sweet?", model="smollm2-135m-instruct"))
        async for _ in left:
            break
        left.cancel()
        async with asyncio.timeout(20):
            while True:
                newest = await explained(stack.gateway, "")
                if newest.request.question == "Is honey sweet?":
                    break
                await asyncio.sleep(0.02)
    assert newest.failure == error_reason_pb2.ERROR_REASON_CANCELLED
    assert newest.trail.hops


async def test_a_failure_tells_the_id_by_which_it_is_explained(stub: Any, stack: TestStack) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Ask(ask("no-such-collection"))
    told = from_rpc_error(caught.value, service="gateway")
    record = await explained(stack.gateway, told.metadata["answer_id"])
    assert record.failure == error_reason_pb2.ERROR_REASON_COLLECTION_NOT_FOUND
    assert len(record.trail.trace_id) == 32
    assert [hop.method for hop in record.trail.hops] == ["GetCollection"]
    assert record.trail.hops[0].failure == record.failure


async def test_a_degraded_answer_is_explained_by_the_open_breaker(
    stub: Any, stack: TestStack
) -> None:
    async with new_collection(stub, [BEES]) as name:
        stack.stop("embedder")
        try:
            for _ in range(20):
                response = await stub.Ask(ask(name, cache=pb.CACHE_POLICY_NONE))
                record = await explained(stack.gateway, response.answer_id)
                assert is_as_told(record, response)
                assert record.degradations[0].substitute == pb.SUBSTITUTE_LEXICAL_SEARCH
                embed = next(hop for hop in record.trail.hops if hop.service == "embedder")
                if embed.breaker == pb.BREAKER_STATE_OPEN:
                    break
            assert embed.failure == error_reason_pb2.ERROR_REASON_CIRCUIT_OPEN
        finally:
            stack.start("embedder")
        async with asyncio.timeout(10):
            while True:
                if not (await stub.Ask(ask(name, cache=pb.CACHE_POLICY_NONE))).degradations:
                    break
                await asyncio.sleep(0.05)


async def test_another_replica_explains_what_one_has_answered(stub: Any, stack: TestStack) -> None:
    async with new_collection(stub, [BEES]) as name:
        response = await stub.Ask(ask(name))
    database = {
        name.removeprefix("QUINTET_GATEWAY_"): value
        for name, value in database_variables(stack, "gateway").items()
    }
    async with second_gateway(stack, **database, RECORDS__TEXTS="true") as other:
        async with asyncio.timeout(20):
            while True:
                try:
                    record = await explained(other, response.answer_id)
                    break
                except grpc.aio.AioRpcError as error:
                    assert reason(error) in ("ANSWER_NOT_FOUND", "DEPENDENCY_UNAVAILABLE")
                    await asyncio.sleep(0.05)
        assert is_as_told(record, response)


async def test_what_a_gateway_has_yet_to_write_is_written_when_it_ends(
    stub: Any, stack: TestStack
) -> None:
    database = {
        name.removeprefix("QUINTET_GATEWAY_"): value
        for name, value in database_variables(stack, "gateway").items()
    }
    late = {"RECORDS__TEXTS": "true", "RECORDS__INTERVAL_SECONDS": "60"}
    async with new_collection(stub, [BEES]) as name:
        async with (
            second_gateway(stack, **database, **late) as other,
            gateway_stub(other) as ending,
        ):
            async with asyncio.timeout(20):
                while True:
                    status = await ending.GetStatus(pb.GetStatusRequest(), wait_for_ready=True)
                    if status.database == pb.DATABASE_STATE_SERVING:
                        break
                    await asyncio.sleep(0.05)
            response = await ending.Ask(ask(name))
        assert is_as_told(await explained(stack.gateway, response.answer_id), response)


async def quintet(
    stack: TestStack, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Run the command line; return its exit status and what it printed."""
    options = ("--address", stack.gateway, *arguments)
    status = await asyncio.to_thread(main, ["explain", *options])
    printed = capsys.readouterr()
    return status, printed.out or printed.err


async def test_the_command_line_tells_how_an_answer_came_about(
    stub: Any, stack: TestStack, capsys: pytest.CaptureFixture[str]
) -> None:
    async with new_collection(stub, [BEES]) as name:
        response = await stub.Ask(ask(name, cache=pb.CACHE_POLICY_NONE))
        status, told = await quintet(stack, capsys, response.answer_id)
        assert status == 0
        words = " ".join(told.split())
        for expected in (
            f"answer {response.answer_id}",
            f"question {WANTED}",
            "answerability",
            "sentences supported",
            "generator.GenerateStream",
            "closed",
            f"trace {response.trail.trace_id}",
            "1 bees 1 0",
        ):
            assert expected in words
        status, told = await quintet(stack, capsys, "--last", "--json")
        assert (status, json.loads(told)["answer_id"]) == (0, response.answer_id)
    unknown = "01a20564-97bc-734e-9cf1-5eea2be379c8"
    status, told = await quintet(stack, capsys, unknown)
    assert status == 1
    assert "ANSWER_NOT_FOUND" in told
    status, told = await quintet(stack, capsys)
    assert status == 2


async def test_a_replay_compares_what_is_answered_now(
    stub: Any, stack: TestStack, capsys: pytest.CaptureFixture[str]
) -> None:
    async with new_collection(stub, [BEES]) as name:
        for _ in range(2):
            kept = await stub.Ask(ask(name, passages=1))
        status, told = await quintet(stack, capsys, "--replay", kept.answer_id)
        assert status == 0
        assert "the answer is the same" in told
        assert "embedder.Embed" in told  # it was kept before, and is made now

        changed = pb.Document(id="bees", content="Bees make wax and nothing else.")
        await ingest(stub, name, [changed])
        status, told = await quintet(stack, capsys, "--replay", "--json", kept.answer_id)
    assert status == 1
    result = json.loads(told)
    assert result["replay"]["cache"]["use"]["outcome"] == "CACHE_OUTCOME_BYPASS"
    differences = result["differences"]
    assert not differences["same_answer"]
    assert any(line.startswith("- Bees make honey.") for line in differences["text_diff"])
    assert any(line.startswith("+ Bees make wax") for line in differences["text_diff"])
    [passage] = differences["passages"]
    assert (passage["version_before"], passage["version_now"]) == (1, 2)
    assert {it["what"] for it in differences["settings"]} == {"prompt"}
    assert {it["what"] for it in differences["cost"]} >= {"tokens"}
