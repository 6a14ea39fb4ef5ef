"""What `quintet cache` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.arguments import (
    DEFAULT_COLLECTION,
    After,
    Asked,
    CacheChoice,
    CacheOption,
    Collection,
    Filters,
    Fresh,
    GroundedOnly,
    Links,
    Mode,
    Model,
    ModeOption,
    Passages,
    Question,
    Refine,
    Template,
    Yes,
)
from quintet_cli.errors import CliError
from quintet_cli.options import command
from quintet_cli.settings import Settings

cache = typer.Typer(help="Tell how the caches are used, explain or drop what they keep.")


@command(cache, group=True)
def cache_root(settings: Settings) -> None:
    """Tell how the caches are used, explain or drop what they keep."""
    raise CliError("no command is given", advice="see: quintet cache --help", usage=True)


@command(cache, "stats")
def cache_stats(settings: Settings) -> None:
    """Tell how each service's caches are used."""
    from quintet_cli.commands import cache as command_cache

    command_cache.stats(settings)


@command(cache, "explain")
def cache_explain(
    settings: Settings,
    question: Question,
    collection: Collection = DEFAULT_COLLECTION,
    passages: Passages = 0,
    model: Model = "",
    template: Template = "",
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
    cache: CacheOption = CacheChoice.DEFAULT,
    fresh: Fresh = False,
    after: After = None,
    grounded_only: GroundedOnly = False,
    refine: Refine = None,
    links: Links = 0,
) -> None:
    """Tell whether a question would get a kept answer, and why; nothing is asked."""
    from quintet_cli.commands import cache as command_cache

    asked = Asked(
        question=question,
        collection=collection,
        passages=passages,
        model=model,
        template=template,
        conditions=filters or (),
        mode=mode,
        cache=cache,
        fresh=fresh,
        after=after,
        grounded_only=grounded_only,
        refine=refine or (),
        links=links,
    )
    command_cache.explain(settings, asked)


@command(cache, "purge")
def cache_purge(
    settings: Settings,
    question: Annotated[
        str,
        typer.Option(
            metavar="QUESTION", help="The answer to this question, asked with the same options."
        ),
    ] = "",
    document: Annotated[
        str, typer.Option(metavar="ID", help="All that rests on this document.")
    ] = "",
    collection_all: Annotated[
        bool, typer.Option("--collection-all", help="All that rests on the collection.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="All caches of all services.")
    ] = False,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help=f"Name of the collection. Default: {DEFAULT_COLLECTION}"
        ),
    ] = None,
    passages: Passages = 0,
    model: Model = "",
    template: Template = "",
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
    grounded_only: GroundedOnly = False,
    refine: Refine = None,
    links: Links = 0,
    yes: Yes = False,
) -> None:
    """Drop what is kept of a question, a document or a collection, or everything."""
    from quintet_cli.commands import purge as command_purge

    if everything and collection is not None:
        raise CliError(
            "--everything is of every collection",
            advice="for one of them: --collection-all -c NAME",
            usage=True,
        )
    asked = Asked(
        question=question,
        collection=DEFAULT_COLLECTION if collection is None else collection,
        passages=passages,
        model=model,
        template=template,
        conditions=filters or (),
        mode=mode,
        grounded_only=grounded_only,
        refine=refine or (),
        links=links,
    )
    command_purge.run(
        settings,
        asked,
        document=document,
        collection_all=collection_all,
        everything=everything,
        sure=yes,
    )
