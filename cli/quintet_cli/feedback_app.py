"""What `quintet feedback` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.errors import CliError
from quintet_cli.options import command
from quintet_cli.settings import Settings

feedback = typer.Typer(help="Rate answers, and see how templates and models are rated.")


@command(feedback, group=True)
def feedback_root(settings: Settings) -> None:
    """Rate answers, and see how templates and models are rated."""
    raise CliError("no command is given", advice="see: quintet feedback --help", usage=True)


@command(feedback, "rate")
def feedback_rate(
    settings: Settings,
    answer_id: Annotated[
        str, typer.Argument(metavar="ANSWER_ID", help="What an answer told as its id.")
    ] = "",
    last: Annotated[
        bool, typer.Option("--last", help="The newest answer to who uses this key.")
    ] = False,
    up: Annotated[bool, typer.Option("--up", help="It is good; the same as --score 5.")] = False,
    down: Annotated[bool, typer.Option("--down", help="It is not; as --score 1.")] = False,
    score: Annotated[
        int | None, typer.Option(min=1, max=5, help="From 1, bad, to 5, good.")
    ] = None,
    rater: Annotated[
        str, typer.Option(help="Who rates it, of those who use this key. Default: the key.")
    ] = "",
    comment: Annotated[str, typer.Option(help="Kept only if the server is set to.")] = "",
) -> None:
    """Rate an answer. Who rates one again replaces the rating."""
    from quintet_cli.commands import feedback as command_feedback

    if bool(answer_id) == last:
        raise CliError("give the id of an answer, or --last", usage=True)
    if up + down + (score is not None) != 1:
        raise CliError("give one of --up, --down and --score", usage=True)
    command_feedback.rate(
        settings, answer_id, score=score or (5 if up else 1), rater=rater, comment=comment
    )


@command(feedback, "report")
def feedback_report(
    settings: Settings,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Of this collection. Default: of all.")
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Of the last days.")] = 30,
    comments: Annotated[int, typer.Option(min=0, max=200, help="Newest comments to show.")] = 0,
) -> None:
    """Tell how answers were rated, by prompt template and model."""
    from quintet_cli.commands import feedback as command_feedback

    command_feedback.report(settings, collection=collection, days=days, comments=comments)
