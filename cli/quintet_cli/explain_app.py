"""What `quintet explain` looks like. As light as `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet_cli.errors import CliError
from quintet_cli.options import command
from quintet_cli.settings import Settings


def add_explain(app: typer.Typer) -> None:
    """Add the command to an app."""

    @command(app, "explain")
    def explain(
        settings: Settings,
        answer_id: Annotated[
            str, typer.Argument(metavar="ANSWER_ID", help="What an answer told as its id.")
        ] = "",
        last: Annotated[
            bool, typer.Option("--last", help="The newest answer to who uses this key.")
        ] = False,
        replay: Annotated[
            bool, typer.Option("--replay", help="Ask again in the same way, and compare.")
        ] = False,
        question: Annotated[
            str,
            typer.Option(
                metavar="QUESTION", help="The question, where the gateway does not record it."
            ),
        ] = "",
    ) -> None:
        """Tell how an answer came about; ask again and compare.

        With --replay the exit status is 1 where the answer is another one now.
        """
        from quintet_cli.commands import explain as command_explain

        if bool(answer_id) == last:
            raise CliError(
                "give the id of an answer, or --last",
                advice="an answer's id stands below it",
                usage=True,
            )
        command_explain.run(settings, answer_id, replay=replay, question=question)
