"""`quintet cache purge`: what caches keep of a question, a document, a collection, or at
all, dropped."""

from __future__ import annotations

import asyncio

import typer

from quintet.gateway.v1.gateway_service_pb2 import PurgeCacheRequest
from quintet_cli import confirmation, render
from quintet_cli.arguments import Asked, Mode
from quintet_cli.commands.ask import request_of
from quintet_cli.connection import connected
from quintet_cli.errors import CliError
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json, shown


def run(
    settings: Settings,
    asked: Asked,
    *,
    document: str,
    collection_all: bool,
    everything: bool,
    sure: bool,
) -> None:
    """Drop one of: the answer to what was `asked` if that has a question, all that rests
    on the `document` or on the whole collection that `asked` names, or everything; the
    last two after asking unless `sure`.

    Raises `CliError` (usage) for none or several of them.
    """
    if sum(map(bool, (asked.question, document, collection_all, everything))) != 1:
        raise CliError(
            "give one of --question, --document, --collection-all and --everything", usage=True
        )
    of_questions = (asked.passages, asked.model, asked.conditions, asked.mode != Mode.HYBRID)
    if not asked.question and any(of_questions):
        raise CliError("--passages, --model, --filter and --mode go with --question", usage=True)
    collection = asked.collection
    if asked.question:
        request = PurgeCacheRequest(question=request_of(asked))
    elif document:
        name = PurgeCacheRequest.DocumentName(collection=collection, id=document)
        request = PurgeCacheRequest(document=name)
    elif collection_all:
        _confirm(settings, sure, f"all that is kept of {collection}")
        request = PurgeCacheRequest(collection=collection)
    else:
        _confirm(settings, sure, "all that every service keeps, of every collection")
        request = PurgeCacheRequest(everything=True)
    asyncio.run(_run(settings, request, collection))


def _confirm(settings: Settings, sure: bool, what: str) -> None:
    if not sure:
        confirmation.need_somebody(settings, f"dropping {what}")
        typer.confirm(f"Drop {what}? Answers are slow until it is made anew.", abort=True)


async def _run(settings: Settings, request: PurgeCacheRequest, collection: str) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary("PurgeCache", gateway.stub.PurgeCache, request)
    if settings.json:
        print_json(as_json(response))
        return
    match request.WhichOneof("subject"):
        case "question" if not response.dropped:
            told = "nothing was kept of it; give the options that it was asked with"
        case "question" | "everything":
            told = f"dropped {response.dropped} result{'s' if response.dropped != 1 else ''}"
        case "document":
            told = f"nothing kept that rests on {shown(request.document.id)} is served any more"
        case _:
            told = f"nothing kept of {collection} is served any more"
    out = console()
    out.print(told)
    render.token(out, collection, response.consistency_token)
