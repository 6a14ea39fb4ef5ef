"""What `quintet collections` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.arguments import (
    Yes,
)
from quintet_cli.options import command
from quintet_cli.settings import Settings

collections = typer.Typer(help="List the collections; embed one anew; delete one.")


@command(collections, group=True)
def list_collections(settings: Settings) -> None:
    """List the collections; embed one anew; delete one."""
    from quintet_cli.commands import collections as command_collections

    command_collections.list_all(settings)


@command(collections, "delete")
def delete_collection(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name of the collection.")],
    yes: Yes = False,
) -> None:
    """Delete a collection with all its documents."""
    from quintet_cli.commands import collections as command_collections

    command_collections.delete(settings, name, sure=yes)


@command(collections, "reembed")
def reembed_collection(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name of the collection.")],
    model: Annotated[
        str,
        typer.Option("--model", help="Its embedding model; default: the embedder's."),
    ] = "",
    beside: Annotated[
        str, typer.Option("--beside", help="Name of the new one; default: the name and -next.")
    ] = "",
    switch: Annotated[
        bool, typer.Option("--switch", help="Let the new one take the collection's place.")
    ] = False,
    least_overlap: Annotated[
        float,
        typer.Option("--least-overlap", min=0, max=1, help="Else it does not: see the overlap."),
    ] = 0.0,
) -> None:
    """Embed a collection anew, beside it; compare both; let the new one take its place.

    Questions are answered and documents come in as ever meanwhile. What is interrupted
    goes on when it is run again.
    """
    from quintet.gateway.v1.gateway_service_pb2 import ReembedCollectionRequest
    from quintet_cli.commands import reembed as command_reembed

    request = ReembedCollectionRequest(
        collection=name,
        embedding_model=model,
        beside=beside,
        switch=switch,
        least_overlap=least_overlap,
    )
    command_reembed.run(settings, request)
