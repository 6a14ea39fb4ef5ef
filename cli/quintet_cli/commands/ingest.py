"""`quintet ingest`: files and folders into a collection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from quintet.gateway.v1.gateway_service_pb2 import CreateCollectionRequest, GetCollectionRequest
from quintet_cli import files, render
from quintet_cli.connection import Gateway, connected, new_request_id
from quintet_cli.errors import FAILED, CliError
from quintet_cli.ingestion import Ingestion, Item, Result, Summary
from quintet_cli.live import Progress
from quintet_cli.settings import Settings
from quintet_cli.shards import Shard
from quintet_cli.terminal import console, print_json, seconds, shown
from quintet_servicekit.errors import Reason, ServiceError


def run(
    settings: Settings, paths: Sequence[Path], *, collection: str, language: str, shard: Shard
) -> None:
    """Bring in the shard's files under `paths`; exit with 1 when any failed."""
    items: list[Item] = list(files.find(paths))
    if not items:
        raise CliError(
            "nothing to read in " + ", ".join(map(str, paths)),
            advice=f"files of these types are read: {' '.join(files.TYPES)}",
        )
    # A share may be empty where the whole is not.
    items = [it for it in items if shard.has(it.id)]
    summary = asyncio.run(_run(settings, items, collection, language))
    if summary.failed:
        raise typer.Exit(FAILED)


async def _run(
    settings: Settings, items: Sequence[Item], collection: str, language: str
) -> Summary:
    async with connected(settings) as gateway:
        await ensure(gateway, collection, language=language)
        with Progress(f"into {collection}", total=len(items), unit="documents") as progress:

            def on_result(result: Result) -> None:
                _tell(settings, progress, result)

            ingestion = Ingestion(gateway, collection, on_result)
            try:
                await ingestion.run(items)
            finally:
                # Also after Ctrl-C or a broken stream: what was acknowledged is kept.
                progress.stop()
                _sum_up(settings, ingestion, len(items))
    return ingestion.summary


async def ensure(
    gateway: Gateway, collection: str, description: str = "", language: str = ""
) -> None:
    """Make the collection, with the embedder's default model, unless it is there."""
    try:
        await gateway.unary(
            "GetCollection", gateway.stub.GetCollection, GetCollectionRequest(name=collection)
        )
    except ServiceError as error:
        if error.reason is not Reason.COLLECTION_NOT_FOUND:
            raise
        await gateway.unary(
            "CreateCollection",
            gateway.stub.CreateCollection,
            CreateCollectionRequest(
                name=collection,
                description=description,
                language=language,
                request_id=new_request_id(),
            ),
        )


def _tell(settings: Settings, progress: Progress, result: Result) -> None:
    progress.advance()
    failed = result.outcome == "failed"
    if settings.json:
        print_json({"event": "document", **asdict(result)})
    elif failed:
        reason = f" [{result.reason}]" if result.reason != "UNREADABLE" else ""
        progress.print(f"failed: {shown(result.name)}: {result.message}{reason}", style="red")
    elif not progress.live:
        console().print(f"{result.outcome}: {shown(result.name)}")


def _sum_up(settings: Settings, ingestion: Ingestion, total: int) -> None:
    summary, token = ingestion.summary, ingestion.newest.token
    if settings.json:
        counts = {"documents": total, **summary.counts()}
        print_json({"event": "summary", **counts, "consistency_token": token})
        return
    done = summary.created + summary.replaced + summary.unchanged
    parts = [
        f"{summary.created} created",
        f"{summary.replaced} replaced",
        f"{summary.unchanged} unchanged",
        f"{summary.failed} failed",
        f"{summary.chunks} chunks",
        f"{summary.tokens} tokens",
        seconds(summary.seconds),
    ]
    out = console()
    out.print(f"{done} of {total} documents: " + ", ".join(parts))
    render.token(out, ingestion.collection, token)
