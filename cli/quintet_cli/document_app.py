"""What `quintet documents` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.arguments import (
    DEFAULT_COLLECTION,
    Collection,
    DocumentId,
    Filters,
)
from quintet_cli.options import command
from quintet_cli.settings import Settings

documents = typer.Typer(help="List a collection's documents; show or delete one.")


@command(documents, group=True)
def list_documents(
    settings: Settings, collection: Collection = DEFAULT_COLLECTION, filters: Filters = None
) -> None:
    """List a collection's documents; show or delete one."""
    from quintet_cli.commands import documents as command_documents

    command_documents.list_all(settings, collection=collection, conditions=filters or [])


@command(documents, "show")
def show_document(
    settings: Settings, document_id: DocumentId, collection: Collection = DEFAULT_COLLECTION
) -> None:
    """Show one document with its content."""
    from quintet_cli.commands import documents as command_documents

    command_documents.show(settings, collection=collection, document_id=document_id)


@command(documents, "delete")
def delete_document(
    settings: Settings, document_id: DocumentId, collection: Collection = DEFAULT_COLLECTION
) -> None:
    """Delete one document."""
    from quintet_cli.commands import documents as command_documents

    command_documents.delete(settings, collection=collection, document_id=document_id)


@command(documents, "rename")
def rename_document(
    settings: Settings,
    document_id: DocumentId,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="Identifier that it is to have.")],
    collection: Collection = DEFAULT_COLLECTION,
) -> None:
    """Give a document another id; links by its old names still lead to it."""
    from quintet_cli.commands import links as command_links

    command_links.rename(settings, document_id, new_id, collection=collection)
