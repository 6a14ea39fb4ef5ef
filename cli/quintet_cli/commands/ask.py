"""`quintet ask`: a question's answer as it comes, then its sources."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from quintet.gateway.v1.gateway_service_pb2 import (
    AskRequest,
    AskResponse,
    AskStreamResponse,
    CachePolicy,
    Turn,
)
from quintet.retriever.v1.retriever_service_pb2 import SearchMode
from quintet_cli import consistency, degradation, filters, refining, render
from quintet_cli.answering import answer
from quintet_cli.arguments import Asked
from quintet_cli.commands import trace
from quintet_cli.connection import Gateway, connected
from quintet_cli.errors import CliError
from quintet_cli.live import Waiting
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json
from quintet_servicekit import fault_injection
from quintet_servicekit.errors import ServiceError

MOST_TURNS = 16
"""Turns that the gateway takes."""
MOST_ANSWER_CHARACTERS = 16_000
"""Characters of a turn's answer that it takes."""


def run(
    settings: Settings,
    asked: Asked,
    *,
    chat: bool,
    waterfall: bool,
    trace_file: Path | None,
    faults: Sequence[str] = (),
) -> None:
    """Ask, print, and write the trace where `trace_file` names a file. In a `chat` go on
    with the questions on standard input. `faults` are done to them, as
    `quintet_servicekit.fault_injection` says.

    Raises `CliError` (usage) for a fault that breaks its syntax.
    """
    asyncio.run(_run(settings, request_of(asked), chat, waterfall, trace_file, _header_of(faults)))


def _header_of(faults: Sequence[str]) -> str:
    header = ",".join(faults)
    try:
        if header:
            fault_injection.parsed(header)
    except ServiceError as error:
        raise CliError(error.message, advice="see docs/game-days.md", usage=True) from error
    return header


def request_of(asked: Asked) -> AskRequest:
    """Return a question in the contract's form.

    Raises `CliError` (usage) for a filter or a step that is none, and for two consistencies.
    """
    policy = "UNSPECIFIED" if asked.cache == "default" else asked.cache.upper()
    return AskRequest(
        collection=asked.collection,
        question=asked.question,
        passages=asked.passages,
        filter=filters.parsed(asked.conditions),
        mode=mode_of(asked.mode),
        model=asked.model,
        template=asked.template,
        consistency=consistency.required(fresh=asked.fresh, after=asked.after),
        cache=CachePolicy.Value(f"CACHE_POLICY_{policy}"),
        fail_if_degraded=asked.fail_if_degraded,
        max_staleness=degradation.staleness(asked.max_staleness),
        grounded_only=asked.grounded_only,
        refinement=refining.parsed(asked.refine),
        linked_passages=asked.links,
    )


def mode_of(name: str) -> SearchMode.ValueType:
    """Return the search mode that an option names; "" leaves it to the gateway."""
    return SearchMode.Value(f"SEARCH_MODE_{name.upper() or 'UNSPECIFIED'}")


async def _run(
    settings: Settings,
    request: AskRequest,
    chat: bool,
    waterfall: bool,
    trace_file: Path | None,
    faults: str,
) -> None:
    fault_injection.carry(faults)
    async with connected(settings) as gateway:
        response = await _told(settings, gateway, request, waterfall)
        while chat and (question := await asyncio.to_thread(_next_question)):
            turn = Turn(question=request.question, answer=response.answer[:MOST_ANSWER_CHARACTERS])
            turns = [*request.turns, turn][-MOST_TURNS:]
            del request.turns[:]
            request.turns.extend(turns)
            request.question = question
            response = await _told(settings, gateway, request, waterfall)
    if trace_file is not None:
        written = await trace.write(settings.state_dir, response.trail.trace_id, trace_file)
        if not settings.json:
            trace.tell(console(), trace_file, written)


async def _told(
    settings: Settings, gateway: Gateway, request: AskRequest, waterfall: bool
) -> AskResponse:
    if settings.json:
        response = await answer(gateway, request)
        print_json(as_json(response))
        return response
    out = console()
    response = await printed(gateway, request, out)
    if waterfall:
        out.print()
        render.waterfall(out, response.trail, response.cache)
    return response


def _next_question() -> str:
    """Return the next question of standard input; "" at its end."""
    if sys.stdin.isatty():
        console(stderr=True).print("> ", end="")
    return next((line.strip() for line in sys.stdin if line.strip()), "")


async def printed(gateway: Gateway, request: AskRequest, out: Console) -> AskResponse:
    """Ask and print the answer as it comes, then its sources and one line of figures.

    Raises as `quintet_cli.answering.answer` does.
    """
    printer = render.AnswerPrinter(out)
    began = time.perf_counter()
    with Waiting("looking for passages") as wait:

        def on_event(event: AskStreamResponse) -> None:
            if event.WhichOneof("event") == "passages_found":
                wait.tell(f"reading {len(event.passages_found.passages)} passages")
            else:
                wait.stop()
            printer(event)

        try:
            response = await answer(gateway, request, on_event)
        finally:
            printer.close()
    out.print()
    degradation.tell(out, response.degradations)
    render.caveats(out, response)
    render.sources(out, response)
    render.footer(out, response, time.perf_counter() - began)
    return response
