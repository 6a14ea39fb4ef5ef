"""A cold question through all five services, against the same parts in one process.

Measured with the extractive backend, which answers first by default and where all that
is not arithmetic shows; `chain_model` measures the same with the language model.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from bench.corpus import documents, questions
from bench.database import database_url
from bench.figures import Figure, Samples, alone, compared
from bench.ingest import ingest
from bench.run import Run
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import Stack
from quintet_local.traces import Span, TraceNotFoundError, load_trace

COLLECTION = "reference"
CALLERS = 16


async def bench(run: Run) -> list[Figure]:
    """Measure with the extractive backend."""
    async with run.stack() as stack:
        return await measured(
            run, stack, "chain", model="extractive", alone_asks=40, together=160, max_tokens=256
        )


async def measured(
    run: Run,
    stack: Stack,
    name: str,
    *,
    model: str,
    alone_asks: int,
    together: int,
    max_tokens: int,
) -> list[Figure]:
    """Ask `alone_asks` questions one by one, and `together` by 16 callers, a round."""
    run.say("the reference: ingesting")
    await ingest(stack, documents(run.size(150_000, 3_000)), COLLECTION)
    one_by_one, together = run.size(alone_asks, 1), run.size(together, 2)
    kind = "extractive" if model == "extractive" else "model"
    database = await asyncio.to_thread(database_url, stack)
    async with (
        grpc.aio.insecure_channel(stack.gateway) as channel,
        run.worker("single_process", database, COLLECTION, kind) as single,
    ):
        stub: Any = GatewayServiceStub(channel)
        traces: list[str] = []
        # Each side is asked each question once: what it remembers of one helps with none.
        asked = questions(run.size(1_400, 12))
        parts = {"one by one": asked[: len(asked) // 4], "together": asked[len(asked) // 4 :]}
        ours_next, theirs_next = (
            {part: itertools.cycle(them) for part, them in parts.items()} for _ in range(2)
        )

        async def ask(question: str) -> str:
            request = pb.AskRequest(
                collection=COLLECTION,
                question=question,
                model=model,
                max_tokens=max_tokens,
                abstain_below=0,
            )
            response: pb.AskResponse = await stub.Ask(request)
            return response.trail.trace_id

        async def ours() -> float:
            waits = []
            for question in _some(ours_next["one by one"], one_by_one):
                began = time.perf_counter()
                traces.append(await ask(question))
                waits.append((time.perf_counter() - began) * 1000)
            return statistics.median(waits)

        async def theirs() -> float:
            few = _some(theirs_next["one by one"], one_by_one)
            waits: list[float] = await single(questions=few, max_tokens=max_tokens)
            return statistics.median(waits) * 1000

        async def ours_together() -> float:
            waiting = iter(_some(ours_next["together"], together))

            async def caller() -> None:
                for question in waiting:
                    await ask(question)

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            return together / (time.perf_counter() - began)

        async def theirs_together() -> float:
            # However many wait, it answers one after the other.
            few = _some(theirs_next["together"], max(2, together // 4))
            waits: list[float] = await single(questions=few, max_tokens=max_tokens)
            return len(few) / sum(waits)

        found = await run.interleaved(
            {
                "Ask": ours,
                "one process": theirs,
                "16 callers": ours_together,
                "one process, 16 waiting": theirs_together,
            }
        )
        own = await _gateways_own(stack, traces[-run.rounds * one_by_one :], run.rounds)
    return [
        compared(
            f"{name}: p50 of a cold Ask",
            "ms",
            found["Ask"],
            "the same parts in one process",
            found["one process"],
            at_most=1.05,
        ),
        compared(
            f"{name}: cold Asks by {CALLERS} callers",
            "asks/s",
            found["16 callers"],
            "the same parts in one process",
            found["one process, 16 waiting"],
            at_least=2.0,
        ),
        alone(f"{name}: gateway's own time in a cold Ask, p50", "ms", own, at_most=3.0),
    ]


def _some(questions: Iterator[str], number: int) -> list[str]:
    return list(itertools.islice(questions, number))


async def _gateways_own(stack: Stack, traces: Sequence[str], rounds: int) -> Samples:
    """Return for each round the median of the gateway's own milliseconds."""
    each = len(traces) // rounds
    return [
        statistics.median([await _own_milliseconds(stack, it) for it in traces[at : at + each]])
        for at in range(0, each * rounds, each)
    ]


async def _own_milliseconds(stack: Stack, trace_id: str) -> float:
    """Return what of the gateway's span none of its calls covers."""
    async with asyncio.timeout(15):
        while True:
            spans: Sequence[Span] = ()
            with suppress(TraceNotFoundError):
                spans = await asyncio.to_thread(load_trace, stack.state_dir, trace_id)
            for span in spans:
                if span.service == "gateway" and span.kind == "server":
                    children = [it for it in spans if it.parent_id == span.span_id]
                    return (span.end_ns - span.start_ns - _covered(children)) / 1e6
            await asyncio.sleep(0.1)


def _covered(spans: Sequence[Span]) -> int:
    """Return the nanoseconds that at least one of the spans covers."""
    covered, until = 0, 0
    for span in sorted(spans, key=lambda it: it.start_ns):
        covered += max(0, span.end_ns - max(span.start_ns, until))
        until = max(until, span.end_ns)
    return covered
