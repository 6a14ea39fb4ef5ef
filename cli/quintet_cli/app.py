"""What the command line looks like: commands, options, help.

Each command imports what it runs when it runs, so that `quintet --help` loads
neither gRPC nor the contracts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quintet_cli.arguments import (
    DEFAULT_COLLECTION,
    After,
    Asked,
    CacheChoice,
    CacheOption,
    Chat,
    Collection,
    DocumentId,
    FailIfDegraded,
    Faults,
    Filters,
    Fresh,
    GroundedOnly,
    Links,
    MaxStaleness,
    Mode,
    Model,
    ModeOption,
    Passages,
    Question,
    Refine,
    Waterfall,
    Yes,
)
from quintet_cli.errors import CliError
from quintet_cli.link_app import links
from quintet_cli.options import command
from quintet_cli.settings import Settings
from quintet_cli.shards import WHOLE, Shard

app = typer.Typer(
    help="Answers from your own documents, with their sources.",
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
documents = typer.Typer(help="List a collection's documents; show or delete one.")
collections = typer.Typer(help="List the collections; embed one anew; delete one.")
cache = typer.Typer(help="Tell how the caches are used, explain or drop what they keep.")
app.add_typer(documents, name="documents")
app.add_typer(collections, name="collections")
app.add_typer(cache, name="cache")
app.add_typer(links, name="links")


@command(app, group=True)
def root(settings: Settings) -> None:
    """Answers from your own documents, with their sources."""
    raise CliError("no command is given", advice="see: quintet --help", usage=True)


@command(app)
def up(settings: Settings) -> None:
    """Run everything on this machine, until Ctrl-C."""
    from quintet_cli.commands import up as command_up

    command_up.run(settings)


@command(app)
def demo(settings: Settings) -> None:
    """See it work: Python's reference in, three answers out."""
    from quintet_cli.commands import demo as command_demo

    command_demo.run(settings)


@command(app)
def ingest(
    settings: Settings,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", exists=True, help="Files and folders.")
    ],
    collection: Collection = DEFAULT_COLLECTION,
    language: Annotated[
        str, typer.Option(help='Of the words of a new collection, "german" for instance.')
    ] = "english",
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=Shard.parse,
            metavar="I/N",
            help="Only this share of the files, I from 0 to N-1, by a hash of each one's id: "
            "for N runs at once that bring in everything together.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring in files and folders.

    Files of the types .md, .txt, .rst, .html and .htm are read; what has not
    changed is skipped. The exit status is 1 when a document failed.
    """
    from quintet_cli.commands import ingest as command_ingest

    command_ingest.run(
        settings, paths, collection=collection, language=language, shard=shard or WHOLE
    )


@command(app)
def ask(
    settings: Settings,
    question: Question,
    collection: Collection = DEFAULT_COLLECTION,
    passages: Passages = 0,
    model: Model = "",
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
    cache: CacheOption = CacheChoice.DEFAULT,
    fresh: Fresh = False,
    after: After = None,
    fail_if_degraded: FailIfDegraded = False,
    max_staleness: MaxStaleness = None,
    grounded_only: GroundedOnly = False,
    refine: Refine = None,
    links: Links = 0,
    chat: Chat = False,
    waterfall: Waterfall = False,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the answer's trace there, for Jaeger's UI."),
    ] = None,
    faults: Faults = None,
) -> None:
    """Answer a question from a collection, with the sources."""
    from quintet_cli.commands import ask as command_ask

    asked = Asked(
        question=question,
        collection=collection,
        passages=passages,
        model=model,
        conditions=filters or (),
        mode=mode,
        cache=cache,
        fresh=fresh,
        after=after,
        fail_if_degraded=fail_if_degraded,
        max_staleness=max_staleness,
        grounded_only=grounded_only,
        refine=refine or (),
        links=links,
    )
    command_ask.run(
        settings, asked, chat=chat, waterfall=waterfall, trace_file=trace, faults=faults or []
    )


@command(app)
def search(
    settings: Settings,
    query: Annotated[str, typer.Argument(help="A question, or words.")],
    collection: Collection = DEFAULT_COLLECTION,
    k: Annotated[int, typer.Option("-k", min=1, max=200, help="Most hits.")] = 10,
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
    fresh: Fresh = False,
    after: After = None,
    fail_if_degraded: FailIfDegraded = False,
    refine: Refine = None,
    links: Links = 0,
    waterfall: Waterfall = False,
) -> None:
    """Find passages without answering."""
    from quintet_cli.commands import search as command_search

    command_search.run(
        settings,
        query,
        collection=collection,
        k=k,
        conditions=filters or [],
        mode=mode,
        fresh=fresh,
        after=after,
        fail_if_degraded=fail_if_degraded,
        refine=refine or (),
        links=links,
        waterfall=waterfall,
    )


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
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
    cache: CacheOption = CacheChoice.DEFAULT,
    fresh: Fresh = False,
    after: After = None,
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
        conditions=filters or (),
        mode=mode,
        cache=cache,
        fresh=fresh,
        after=after,
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
    filters: Filters = None,
    mode: ModeOption = Mode.HYBRID,
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
        conditions=filters or (),
        mode=mode,
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


@command(app)
def status(settings: Settings) -> None:
    """Tell how the services are.

    The exit status is 1 unless all are serving.
    """
    from quintet_cli.commands import status as command_status

    command_status.run(settings)


@command(app)
def trace(
    settings: Settings,
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="32 hex digits.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; - is standard output. Default: trace-ID.json"),
    ] = None,
) -> None:
    """Write an answer's trace for Jaeger's UI.

    The UI opens the file by drag and drop.
    """
    from quintet_cli.commands import trace as command_trace

    command_trace.run(settings, trace_id, out=out)
