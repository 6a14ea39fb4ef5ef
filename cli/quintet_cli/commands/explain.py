"""`quintet explain`: how an answer came about, and whether it would come about again."""

from __future__ import annotations

import asyncio

import typer

from quintet.gateway.v1.explain_service_pb2 import AnswerRecord, ExplainRequest
from quintet_cli import explanation, replaying
from quintet_cli.answering import answer
from quintet_cli.connection import Gateway, connected
from quintet_cli.errors import FAILED
from quintet_cli.live import Waiting
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json


def run(settings: Settings, answer_id: str, *, replay: bool, question: str) -> None:
    """Print the record of an answer, of the newest for an empty id; with `replay` ask again
    and print what is different, and exit with 1 where the answer is.

    Raises `CliError` (usage) where the question is needed and not given.
    """
    asyncio.run(_run(settings, answer_id, replay, question))


async def _run(settings: Settings, answer_id: str, replay: bool, question: str) -> None:
    async with connected(settings) as gateway:
        found = await gateway.unary(
            "Explain", gateway.explain.Explain, ExplainRequest(answer_id=answer_id)
        )
        if replay:
            await _replay(settings, gateway, found.record, question)
        elif settings.json:
            print_json(as_json(found.record))
        else:
            explanation.tell(console(), found.record)


async def _replay(
    settings: Settings, gateway: Gateway, record: AnswerRecord, question: str
) -> None:
    request = replaying.request_of(record, question)
    with Waiting("asking again"):
        response = await answer(gateway, request)
    differences = replaying.compared(record, response)
    if settings.json:
        print_json(
            {
                "record": as_json(record),
                "replay": as_json(response),
                "differences": replaying.as_mapping(differences),
            }
        )
    else:
        replaying.tell(console(), record, response, differences)
    if not differences.same_answer:
        raise typer.Exit(FAILED)
