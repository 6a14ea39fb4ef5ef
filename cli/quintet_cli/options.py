"""The options that every command has, declared once, and the commands' way into the app.

`quintet --json ask …` and `quintet ask … --json` mean the same: the command's
own options win over the root's, and those over the environment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from quintet_cli import settings as env
from quintet_cli.errors import reported
from quintet_cli.settings import Settings

P = ParamSpec("P")
_PANEL = "Options of every command"

Address = Annotated[
    str | None,
    typer.Option(
        help=f"host:port of the gateway. Default: ${env.ADDRESS}, else the local stack's.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder of the local stack. Default: ${env.STATE_DIR}, else .quintet",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"File with an API key. Default: ${env.API_KEY}, ${env.API_KEY_FILE}, else the "
        "local stack's.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        help=f"Seconds that a call may take. Default: ${env.TIMEOUT}, else the command's own.",
        min=0.001,
        metavar="SECONDS",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Output for scripts: JSON only.", rich_help_panel=_PANEL),
]
_GLOBAL = {
    "address": Address,
    "key_file": KeyFile,
    "state_dir": StateDir,
    "timeout": Timeout,
    "json": Json,
}


def merged(
    base: Settings | None,
    address: str | None,
    key_file: Path | None,
    state_dir: Path | None,
    timeout: float | None,
    json: bool,
) -> Settings:
    """Return `base`, or else the environment's settings, with what was given over it."""
    base = base or Settings.from_environment()
    return replace(
        base,
        address=address or base.address,
        api_key=env.read_key(key_file) if key_file else base.api_key,
        state_dir=state_dir or base.state_dir,
        timeout=timeout or base.timeout,
        json=json or base.json,
    )


def command(
    app: typer.Typer, name: str | None = None, *, group: bool = False
) -> Callable[[Callable[Concatenate[Settings, P], None]], Callable[Concatenate[Settings, P], None]]:
    """Register a function as a command of `app`, or with `group` as what `app` runs
    when no command of it is named.

    The function's first parameter is the `Settings`; the command line gets the
    options of every command in its place. A failure is reported and becomes an
    exit status.
    """

    def register(
        function: Callable[Concatenate[Settings, P], None],
    ) -> Callable[Concatenate[Settings, P], None]:
        @wraps(function)
        def run(
            ctx: typer.Context,
            address: str | None,
            key_file: Path | None,
            state_dir: Path | None,
            timeout: float | None,
            json: bool,
            **arguments: Any,
        ) -> None:
            within = ctx.invoked_subcommand
            if within is not None and any(arguments[p.name] != p.default for p in own):
                # Ignoring them would delete from another collection than was named.
                raise typer.BadParameter(f"options of {within} stand after it, not before")
            with reported(as_json=json or bool(ctx.obj and ctx.obj.json)):
                ctx.obj = merged(ctx.obj, address, key_file, state_dir, timeout, json)
                if within is None:
                    function(ctx.obj, **arguments)  # type: ignore[call-arg]

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(p.replace(kind=keyword, annotation=hints[p.name]) for p in own),
            *(
                inspect.Parameter(
                    name, keyword, annotation=kind, default=False if name == "json" else None
                )
                for name, kind in _GLOBAL.items()
            ),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        if group:
            app.callback(invoke_without_command=True)(run)
        else:
            app.command(name)(run)
        return function

    return register
