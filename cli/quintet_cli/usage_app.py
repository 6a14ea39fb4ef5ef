"""What `quintet usage` looks like. As light as `app`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from quintet_cli.options import command
from quintet_cli.settings import Settings


class By(enum.StrEnum):
    """What usage is summed up by."""

    DAY = "day"
    COLLECTION = "collection"
    KEY = "key"
    MODEL = "model"


def add_usage(app: typer.Typer) -> None:
    """Add the command to an app."""

    @command(app, "usage")
    def usage(
        settings: Settings,
        by: Annotated[
            list[By] | None,
            typer.Option(help="Sum up by this; may be given several times. Default: day."),
        ] = None,
        first: Annotated[
            str, typer.Option("--from", metavar="DAY", help="First day. Default: 30 days of all.")
        ] = "",
        last: Annotated[
            str, typer.Option("--to", metavar="DAY", help="Last day. Default: today, in UTC.")
        ] = "",
        csv: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Write the sums there; - for standard output."),
        ] = None,
    ) -> None:
        """See what calls used and cost, and what is left of budgets."""
        from quintet_cli.commands import usage as command_usage

        command_usage.run(settings, [it.value for it in by or [By.DAY]], first, last, csv)
