"""`quintet documents`: what a collection holds, one document, its deletion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from quintet.gateway.v1.gateway_service_pb2 import (
    DeleteDocumentRequest,
    GetDocumentRequest,
    ListDocumentsRequest,
)
from quintet.retriever.v1.retriever_service_pb2 import Document
from quintet_cli import filters, render
from quintet_cli.connection import Gateway, connected, new_request_id
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, day, print_json, shown, table

PAGE = 500


def list_all(settings: Settings, *, collection: str, conditions: Sequence[str]) -> None:
    """Print every document of a collection, by id; as JSON one object a line."""
    asyncio.run(_list_all(settings, collection, conditions))


async def _list_all(settings: Settings, collection: str, conditions: Sequence[str]) -> None:
    request = ListDocumentsRequest(
        collection=collection, page_size=PAGE, filter=filters.parsed(conditions)
    )
    rows = table("id", "title", ">chunks", ">characters", ">version", "updated")
    async with connected(settings) as gateway:
        async for document in _pages(gateway, request):
            if settings.json:
                print_json(as_json(document))
            else:
                rows.add_row(
                    shown(document.id),
                    shown(document.title),
                    f"{document.chunk_count}",
                    f"{document.content_length}",
                    f"{document.version}",
                    day(document.update_time),
                )
    if not settings.json:
        console().print(rows if rows.row_count else f"no documents in {collection}")


async def _pages(gateway: Gateway, request: ListDocumentsRequest) -> AsyncIterator[Document]:
    while True:
        page = await gateway.unary("ListDocuments", gateway.stub.ListDocuments, request)
        for document in page.documents:
            yield document
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def show(settings: Settings, *, collection: str, document_id: str) -> None:
    """Print one document: what is known of it, then its content."""
    asyncio.run(_show(settings, collection, document_id))


async def _show(settings: Settings, collection: str, document_id: str) -> None:
    request = GetDocumentRequest(collection=collection, id=document_id, include_content=True)
    async with connected(settings) as gateway:
        response = await gateway.unary("GetDocument", gateway.stub.GetDocument, request)
    document = response.document
    if settings.json:
        print_json(as_json(document))
        return
    out = console()
    facts = {
        "id": document.id,
        "title": document.title,
        "version": str(document.version),
        "chunks": str(document.chunk_count),
        "created": day(document.create_time),
        "updated": day(document.update_time),
        **{f"metadata.{key}": _told(value) for key, value in as_json(document.metadata).items()},
    }
    rows = table("", "")
    rows.show_header = False
    for name, value in facts.items():
        rows.add_row(name, shown(value))
    out.print(rows)
    out.print()
    out.print(shown(document.content), soft_wrap=True)


def _told(value: object) -> str:
    # All numbers of metadata are floating-point on the wire.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def delete(settings: Settings, *, collection: str, document_id: str) -> None:
    """Delete one document with its chunks."""
    asyncio.run(_delete(settings, collection, document_id))


async def _delete(settings: Settings, collection: str, document_id: str) -> None:
    request = DeleteDocumentRequest(
        collection=collection, id=document_id, request_id=new_request_id()
    )
    async with connected(settings) as gateway:
        response = await gateway.unary("DeleteDocument", gateway.stub.DeleteDocument, request)
    if settings.json:
        print_json(as_json(response))
    else:
        out = console()
        out.print(f"deleted {shown(document_id)}, {response.deleted_chunks} chunks")
        render.token(out, collection, response.consistency_token)
