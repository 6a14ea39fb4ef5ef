"""The command line's page names every command there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from quintet_cli.app import app

PAGE = (Path(__file__).parents[2] / "cli" / "README.md").read_text()


def rows(command: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each command below `command` with the group that it is in."""
    for own, below in getattr(command, "commands", {}).items():
        yield name, own
        yield from rows(below, own)


def test_every_command_is_named() -> None:
    lines = [it for it in PAGE.splitlines() if it.startswith("| `quintet ")]
    commands = list(rows(typer.main.get_command(app)))
    assert ("links", "tree") in commands
    for group, name in commands:
        told = [it for it in lines if it.startswith(f"| `quintet {group or name}")]
        assert any(re.search(rf"\b{name}\b", it) for it in told), f"{group} {name}".strip()
