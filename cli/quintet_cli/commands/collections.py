"""`quintet collections`: which there are, and the deletion of one."""

from __future__ import annotations

import asyncio

import typer

from quintet.gateway.v1.gateway_service_pb2 import (
    DeleteCollectionRequest,
    GetCollectionRequest,
    ListCollectionsRequest,
)
from quintet_cli import confirmation
from quintet_cli.connection import connected, new_request_id
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, day, print_json, shown, table

PAGE = 500


def list_all(settings: Settings) -> None:
    """Print every collection, by name; as JSON one object a line."""
    asyncio.run(_list_all(settings))


async def _list_all(settings: Settings) -> None:
    rows = table("name", ">documents", ">chunks", "embedding model", "created", "description")
    request = ListCollectionsRequest(page_size=PAGE)
    async with connected(settings) as gateway:
        while True:
            page = await gateway.unary("ListCollections", gateway.stub.ListCollections, request)
            for found in page.collections:
                if settings.json:
                    print_json(as_json(found))
                    continue
                rows.add_row(
                    found.name,
                    f"{found.document_count}",
                    f"{found.chunk_count}",
                    found.embedding_model,
                    day(found.create_time),
                    shown(found.description),
                )
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    if not settings.json:
        nothing = "no collections; make one with: quintet ingest PATH"
        console().print(rows if rows.row_count else nothing)


def delete(settings: Settings, name: str, *, sure: bool) -> None:
    """Delete a collection with all its documents, after asking unless `sure`."""
    if not sure:
        confirmation.need_somebody(settings, f"deleting {name} with its documents")
    asyncio.run(_delete(settings, name, sure))


async def _delete(settings: Settings, name: str, sure: bool) -> None:
    async with connected(settings) as gateway:
        if not sure:
            found = await gateway.unary(
                "GetCollection", gateway.stub.GetCollection, GetCollectionRequest(name=name)
            )
            count = found.collection.document_count
            typer.confirm(f"Delete {name} with its {count} documents?", abort=True)
        response = await gateway.unary(
            "DeleteCollection",
            gateway.stub.DeleteCollection,
            DeleteCollectionRequest(name=name, request_id=new_request_id()),
        )
    if settings.json:
        print_json(as_json(response))
    else:
        console().print(f"deleted {name}, {response.deleted_documents} documents")
