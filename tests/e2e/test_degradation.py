"""With a service stopped or frozen: what callers get instead, flagged and in time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.stack import TestStack

from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.status.v1 import status_service_pb2 as status_pb2

BEES = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
WANTED = "What do bees make in summer?"
DEADLINE = 0.8
"""Seconds: the caller who has little time."""
LATE = 0.05
"""Seconds by which a call may outlive its deadline."""
RECOVERY = 5.0
"""Seconds within which nothing is flagged any more once a fault has ended."""

POLL = 0.05

AWAY = {"DEPENDENCY_UNAVAILABLE", "CIRCUIT_OPEN", "NOT_READY", "DEADLINE_EXCEEDED"}


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as stub:
        yield stub


@contextmanager
def stopped(stack: TestStack, name: str) -> Iterator[None]:
    stack.stop(name)
    try:
        yield
    finally:
        stack.start(name)


@contextmanager
def frozen(stack: TestStack, name: str) -> Iterator[None]:
    with frozen_process(stack.pid(name)):
        yield


@contextmanager
def frozen_process(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Fault = Callable[[TestStack, str], Any]
faults = pytest.mark.parametrize("fault", [stopped, frozen])


def ask(collection: str, question: str = WANTED, **fields: Any) -> pb.AskRequest:
    return pb.AskRequest(collection=collection, question=question, **fields)


def uncached(collection: str, **fields: Any) -> pb.AskRequest:
    return ask(collection, cache=pb.CACHE_POLICY_NONE, **fields)


async def in_time(call: Callable[..., Awaitable[Any]], request: Any) -> Any:
    """Return the response, or the error's reason, of a call that keeps its deadline."""
    began = time.perf_counter()
    try:
        return await call(request, timeout=DEADLINE)
    except grpc.aio.AioRpcError as error:
        assert time.perf_counter() - began < DEADLINE + LATE
        # Its own deadline ends a call without our details.
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "DEADLINE_EXCEEDED" if late else reason(error)


def told(response: Any) -> list[tuple[str, int]]:
    return [(it.hop, it.substitute) for it in response.degradations]


async def recovered(stub: Any, request: pb.AskRequest) -> None:
    """Wait until a question is answered as it should be, for no longer than promised."""
    async with asyncio.timeout(RECOVERY):
        while True:
            try:
                if not (await stub.Ask(request)).degradations:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(POLL)


async def test_a_healthy_answer_tells_no_degradation_and_each_hops_budget(stub: Any) -> None:
    async with new_collection(stub, [BEES]) as name:
        answer = await stub.Ask(ask(name), timeout=10)
    assert told(answer) == []
    budgets = [hop.budget.ToNanoseconds() / 1e9 for hop in answer.trail.hops]
    lefts = [hop.left.ToNanoseconds() / 1e9 for hop in answer.trail.hops]
    assert all(0 < budget < 10 for budget in budgets)
    assert lefts == sorted(lefts, reverse=True)
    assert not any(hop.failure for hop in answer.trail.hops)


@faults
async def test_without_the_tokenizer_tokens_are_estimated(
    stub: Any, stack: TestStack, fault: Fault
) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(uncached(name))
        with fault(stack, "tokenizer"):
            answer = await in_time(stub.Ask, ask(name))
            again = await in_time(stub.Ask, ask(name))
            refused = await in_time(stub.Ask, ask(name, fail_if_degraded=True))
        assert told(answer) == told(again) == [("tokenizer", pb.SUBSTITUTE_TOKEN_ESTIMATE)]
        assert answer.answer == "Bees make honey."
        assert refused in AWAY
        failed = [hop for hop in answer.trail.hops if hop.failure]
        assert [hop.method for hop in failed] == ["Count"]
        assert ErrorReason.Name(failed[0].failure).removeprefix("ERROR_REASON_") in AWAY
        await recovered(stub, ask(name))


@faults
async def test_without_the_embedder_passages_are_found_by_words(
    stub: Any, stack: TestStack, fault: Fault
) -> None:
    expected = [("embedder", pb.SUBSTITUTE_LEXICAL_SEARCH)]
    async with new_collection(stub, [BEES]) as name:
        search = pb.SearchRequest(
            collection=name, query="honey", mode=retriever_pb.SEARCH_MODE_HYBRID
        )
        await stub.Ask(uncached(name))
        with fault(stack, "embedder"):
            for mode in (retriever_pb.SEARCH_MODE_HYBRID, retriever_pb.SEARCH_MODE_DENSE):
                answer = await in_time(stub.Ask, ask(name, "Which animals make honey?", mode=mode))
                assert told(answer) == expected
                assert answer.passages
            found = await in_time(stub.Search, search)
            assert told(found) == expected
            assert found.mode == retriever_pb.SEARCH_MODE_LEXICAL
            assert found.hits
            assert await in_time(stub.Ask, ask(name, "Insects?")) in AWAY
            by_words = ask(name, "Which animals make honey?", mode=retriever_pb.SEARCH_MODE_LEXICAL)
            assert told(await in_time(stub.Ask, by_words)) == []
            search.fail_if_degraded = True
            assert await in_time(stub.Search, search) in AWAY
            request = ask(name, "Which animals make honey?", fail_if_degraded=True)
            assert await in_time(stub.Ask, request) in AWAY
            events = stub.AskStream(request, timeout=DEADLINE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await events.read()
            assert reason(caught.value) in AWAY
        await recovered(stub, ask(name, "Which animals make honey?"))


@pytest.mark.parametrize(
    ("fault", "what"), [(stopped, "retriever"), (frozen, "retriever"), (stopped, "postgres")]
)
async def test_without_the_retriever_kept_answers_are_served_as_stale_and_no_others(
    stub: Any, stack: TestStack, fault: Fault, what: str
) -> None:
    async with new_collection(stub, [BEES]) as name:
        kept = await stub.Ask(ask(name))
        token = retriever_pb.Consistency(at_least_as_fresh=kept.consistency_token)
        with fault(stack, what):
            async with asyncio.timeout(5):
                answer = await in_time(stub.Ask, ask(name))
                # Until the lease has run out the answer is known to hold.
                while not answer.degradations:
                    await asyncio.sleep(POLL)
                    answer = await in_time(stub.Ask, ask(name))
            assert told(answer) == [("retriever", pb.SUBSTITUTE_STALE_ANSWER)]
            assert answer.degradations[0].age.ToNanoseconds() > 0
            assert answer.cache.possibly_stale
            assert answer.answer == kept.answer
            events = [event async for event in stub.AskStream(ask(name), timeout=DEADLINE)]
            assert told(events[-1].completed) == told(answer)
            for request in (
                ask(name, fail_if_degraded=True),
                ask(name, consistency=token),
                ask(name, "Is honey as sweet as they say?"),
                ask(name, max_staleness={}),
            ):
                assert await in_time(stub.Ask, request) in AWAY
        await recovered(stub, ask(name, "Is honey as sweet as they say?"))


@faults
async def test_without_the_generator_an_answer_whose_passages_stand_is_served_as_stale(
    stub: Any, stack: TestStack, fault: Fault
) -> None:
    async with new_collection(stub, [BEES]) as name:
        kept = await stub.Ask(ask(name))
        with fault(stack, "generator"):
            assert told(await in_time(stub.Ask, ask(name))) == []
            await ingest(stub, name, [pb.Document(id="more", content="Bees also make wax.")])
            answer = await in_time(stub.Ask, ask(name))
            assert told(answer) == [("generator", pb.SUBSTITUTE_STALE_ANSWER)]
            assert (answer.answer, answer.passages) == (kept.answer, kept.passages)
            kinds = [
                event.WhichOneof("event")
                async for event in stub.AskStream(ask(name), timeout=DEADLINE)
            ]
            assert kinds == ["passages_found", "text_delta", "citation", "sentence", "completed"]
            for request in (
                ask(name, fail_if_degraded=True),
                ask(name, "Is honey as sweet as they say?"),
            ):
                assert await in_time(stub.Ask, request) in AWAY
            await ingest(stub, name, [pb.Document(id="bees", content="Bees make wax.")])
            assert await in_time(stub.Ask, ask(name)) in AWAY
        await recovered(stub, ask(name))
        assert "wax" in (await stub.Ask(ask(name))).answer


async def test_a_model_that_does_not_begin_gives_way_to_an_extractive_answer(
    stub: Any, stack: TestStack
) -> None:
    async with new_collection(stub, [BEES]) as name:
        request = uncached(name, model="smollm2-135m-instruct", max_tokens=4)
        assert told(await stub.Ask(request)) == []  # loads the model
        with frozen_process(worker_of(stack.pid("generator"))):
            answer = await in_time(stub.Ask, request)
            assert told(answer) == [("generator", pb.SUBSTITUTE_EXTRACTIVE_ANSWER)]
            assert (answer.model, answer.answer) == ("extractive", "Bees make honey.")
            request.fail_if_degraded = True
            assert await in_time(stub.Ask, request) == "DEADLINE_EXCEEDED"
            request.fail_if_degraded = False
        await recovered(stub, request)


def worker_of(pid: int) -> int:
    """Return the process in which the generator's language model runs."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    (worker,) = [
        it for it in children if b"batch_worker" in Path(f"/proc/{it}/cmdline").read_bytes()
    ]
    return worker


async def test_a_breaker_opens_is_shown_and_closes_again(stub: Any, stack: TestStack) -> None:
    async def breaker() -> pb.Breaker:
        status = await stub.GetStatus(pb.GetStatusRequest())
        (tokenizer,) = [it for it in status.services if it.service == "tokenizer"]
        shown: pb.Breaker = tokenizer.breaker
        return shown

    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(uncached(name))
        with stopped(stack, "tokenizer"):
            causes = []
            for _ in range(8):
                answer = await in_time(stub.Ask, uncached(name))
                causes.append(ErrorReason.Name(answer.degradations[0].cause))
            assert causes[0] == "ERROR_REASON_DEPENDENCY_UNAVAILABLE"
            assert causes[-1] == "ERROR_REASON_CIRCUIT_OPEN"
            shown = await breaker()
            assert shown.state != pb.BREAKER_STATE_CLOSED
            assert shown.rejections > 0
        await recovered(stub, uncached(name))
        assert (await breaker()).state == pb.BREAKER_STATE_CLOSED


async def test_a_frozen_generator_is_soon_refused_at_once_whatever_time_its_callers_have(
    stub: Any, stack: TestStack
) -> None:
    async with new_collection(stub, [BEES]) as name:
        await stub.Ask(uncached(name))
        with frozen(stack, "generator"):
            assert await in_time(stub.Ask, uncached(name)) in AWAY
            async with asyncio.timeout(5):
                while True:
                    began = time.perf_counter()
                    error = await in_time(stub.Ask, uncached(name))
                    if error == "CIRCUIT_OPEN":
                        break
            assert time.perf_counter() - began < DEADLINE / 2
        await recovered(stub, uncached(name))


async def test_each_services_breakers_are_told_by_what_it_depends_on(
    stub: Any, stack: TestStack
) -> None:
    async def dependencies() -> dict[str, dict[str, int]]:
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=5)
        told = {it.service: it.dependencies for it in status.services}
        told["gateway"] = status.dependencies
        return {
            service: {breaker.dependency: breaker.state for breaker in breakers}
            for service, breakers in told.items()
        }

    closed = status_pb2.BREAKER_STATE_CLOSED
    found = await dependencies()
    assert found["retriever"] == {"postgresql": closed, "redis": closed}
    assert found["generator"]["smollm2-135m-instruct"] == closed
    assert found["embedder"] == {"redis": closed}
    assert found["gateway"] == {"postgresql": closed, "redis": closed}
    assert found["tokenizer"] == {}
    async with new_collection(stub, [BEES]) as name:
        with stopped(stack, "postgres"):
            async with asyncio.timeout(5):
                while True:
                    if (await dependencies())["retriever"]["postgresql"] != closed:
                        break
                    await asyncio.sleep(POLL)
        await recovered(stub, uncached(name))
    with frozen(stack, "tokenizer"):
        assert (await dependencies())["tokenizer"] == {}
