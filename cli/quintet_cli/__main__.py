"""Runs the command line; `main` is the `quintet` console script."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import typer

from quintet_cli.app import app
from quintet_cli.errors import CliError, report
from quintet_cli.settings import GRPC_VERBOSITY


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's) name and return
    the exit status: 0 done, 1 failed, 2 usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    os.environ.setdefault(GRPC_VERBOSITY, "NONE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding shows "?" rather than ending the command.
            stream.reconfigure(errors="replace")
    try:
        status = app(arguments, prog_name="quintet", standalone_mode=False)
    except typer.TyperException as error:
        _report_usage(error, as_json="--json" in arguments)
        return error.exit_code
    except typer.Abort:
        return 1
    return status if isinstance(status, int) else 0


def _report_usage(error: typer.TyperException, *, as_json: bool) -> None:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "quintet"
    report(
        CliError(
            error.format_message().removesuffix("."), advice=f"see: {path} --help", usage=True
        ),
        as_json=as_json,
    )


if __name__ == "__main__":
    sys.exit(main())
