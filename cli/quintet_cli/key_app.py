"""What `quintet keys` looks like: its commands, options, help. As light as `app`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from quintet_cli.errors import CliError
from quintet_cli.options import command
from quintet_cli.settings import Settings

keys = typer.Typer(help="Make, list, revoke and exchange API keys.")

Tenant = Annotated[
    str, typer.Option(help="Whose; default: your own. Others' are the operators' to name.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the key there, for its owner alone; else print it."),
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The 12 characters after qk_.")]


class ScopeChoice(enum.StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@command(keys, group=True)
def keys_root(settings: Settings) -> None:
    """Make, list, revoke and exchange API keys."""
    raise CliError("no command is given", advice="see: quintet keys --help", usage=True)


@command(keys, "create")
def keys_create(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name for people.")],
    scope: Annotated[ScopeChoice, typer.Option(help="What it may do.")] = ScopeChoice.READ,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="How long it is valid. Default: for ever.")
    ] = None,
    tenant: Tenant = "",
    out: Out = None,
) -> None:
    """Make a key. It is shown once, and cannot be read again."""
    from quintet_cli.commands import keys as command_keys

    command_keys.create(settings, name, scope=scope, days=days, tenant=tenant, out=out)


@command(keys, "list")
def keys_list(settings: Settings, tenant: Tenant = "") -> None:
    """List the keys, without their secrets."""
    from quintet_cli.commands import keys as command_keys

    command_keys.list_all(settings, tenant=tenant)


@command(keys, "revoke")
def keys_revoke(settings: Settings, key_id: KeyId, tenant: Tenant = "") -> None:
    """Have a key refused from now on."""
    from quintet_cli.commands import keys as command_keys

    command_keys.revoke(settings, key_id, tenant=tenant)


@command(keys, "rotate")
def keys_rotate(
    settings: Settings,
    key_id: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=2160, help="How long the old one goes on working.")
    ] = 24.0,
    tenant: Tenant = "",
    out: Out = None,
) -> None:
    """Make a key like that one, which goes on working for a while."""
    from quintet_cli.commands import keys as command_keys

    command_keys.rotate(settings, key_id, overlap_hours=overlap_hours, tenant=tenant, out=out)
