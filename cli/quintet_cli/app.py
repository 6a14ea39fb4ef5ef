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
    Template,
    Waterfall,
)
from quintet_cli.cache_app import cache
from quintet_cli.collection_app import collections
from quintet_cli.document_app import documents
from quintet_cli.errors import CliError
from quintet_cli.explain_app import add_explain
from quintet_cli.feedback_app import feedback
from quintet_cli.key_app import keys
from quintet_cli.link_app import links
from quintet_cli.options import command
from quintet_cli.settings import Settings
from quintet_cli.shards import WHOLE, Shard
from quintet_cli.usage_app import add_usage

app = typer.Typer(
    help="Answers from your own documents, with their sources.",
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
app.add_typer(documents, name="documents")
app.add_typer(collections, name="collections")
app.add_typer(cache, name="cache")
app.add_typer(links, name="links")
app.add_typer(keys, name="keys")
app.add_typer(feedback, name="feedback")


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
    template: Template = "",
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
        template=template,
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


add_explain(app)
add_usage(app)
