"""What `quintet links` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.arguments import (
    DEFAULT_COLLECTION,
    Collection,
    DocumentId,
    GraphFormat,
    LinkSource,
    LinkTarget,
    LinkTypeChoice,
    LinkTypeOption,
)
from quintet_cli.errors import CliError
from quintet_cli.options import command
from quintet_cli.settings import Settings

links = typer.Typer(help="Tell what links where; state, suggest, remove links.")


@command(links, group=True)
def links_root(settings: Settings) -> None:
    """Tell what links where; state, suggest, remove links."""
    raise CliError("no command is given", advice="see: quintet links --help", usage=True)


@command(links, "list")
def links_list(
    settings: Settings,
    document_id: Annotated[
        str, typer.Argument(metavar="ID", help="Identifier of a document; all without it.")
    ] = "",
    collection: Collection = DEFAULT_COLLECTION,
    form: Annotated[
        GraphFormat | None, typer.Option("--format", help="As a graph, for another program.")
    ] = None,
) -> None:
    """List the links from and to a document, or of the collection."""
    from quintet_cli.commands import links as command_links

    command_links.list_all(settings, collection=collection, document_id=document_id, form=form)


@command(links, "tree")
def links_tree(
    settings: Settings,
    document_id: DocumentId,
    collection: Collection = DEFAULT_COLLECTION,
    depth: Annotated[int, typer.Option(min=1, max=5, help="Most steps.")] = 2,
) -> None:
    """Draw where a document leads."""
    from quintet_cli.commands import links as command_links

    command_links.tree(settings, collection=collection, document_id=document_id, depth=depth)


@command(links, "related")
def links_related(
    settings: Settings,
    document_id: DocumentId,
    collection: Collection = DEFAULT_COLLECTION,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most documents.")] = 20,
) -> None:
    """Find what is linked with a document, over two steps, and how."""
    from quintet_cli.commands import links as command_links

    command_links.related(settings, collection=collection, document_id=document_id, limit=limit)


@command(links, "dangling")
def links_dangling(settings: Settings, collection: Collection = DEFAULT_COLLECTION) -> None:
    """List the links that lead to no document."""
    from quintet_cli.commands import links as command_links

    command_links.dangling(settings, collection=collection)


@command(links, "suggest")
def links_suggest(
    settings: Settings,
    document_id: DocumentId,
    collection: Collection = DEFAULT_COLLECTION,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Most suggestions.")] = 10,
) -> None:
    """Suggest documents to link to, which are near in meaning; makes no link."""
    from quintet_cli.commands import links as command_links

    command_links.suggest(settings, collection=collection, document_id=document_id, limit=limit)


@command(links, "accept")
def links_accept(
    settings: Settings,
    source: LinkSource,
    target: LinkTarget,
    collection: Collection = DEFAULT_COLLECTION,
    link_type: LinkTypeOption = LinkTypeChoice.RELATED,
) -> None:
    """Make a link of a suggestion."""
    from quintet_cli.commands import links as command_links

    command_links.accept(settings, source, target, collection=collection, link_type=link_type)


@command(links, "dismiss")
def links_dismiss(
    settings: Settings,
    source: LinkSource,
    target: LinkTarget,
    collection: Collection = DEFAULT_COLLECTION,
) -> None:
    """Dismiss a suggestion, so that it is not made again."""
    from quintet_cli.commands import links as command_links

    command_links.dismiss(settings, source, target, collection=collection)


@command(links, "add")
def links_add(
    settings: Settings,
    source: LinkSource,
    target: LinkTarget,
    collection: Collection = DEFAULT_COLLECTION,
    link_type: LinkTypeOption = LinkTypeChoice.RELATED,
    note: Annotated[str, typer.Option(help="Note for people.")] = "",
) -> None:
    """State a link from one document to another."""
    from quintet_cli.commands import links as command_links

    command_links.add(
        settings, source, target, collection=collection, link_type=link_type, note=note
    )


@command(links, "remove")
def links_remove(
    settings: Settings,
    source: LinkSource,
    target: LinkTarget,
    collection: Collection = DEFAULT_COLLECTION,
    link_type: LinkTypeOption = LinkTypeChoice.RELATED,
) -> None:
    """Remove a link that was stated or accepted."""
    from quintet_cli.commands import links as command_links

    command_links.remove(settings, source, target, collection=collection, link_type=link_type)
