"""A yes before what cannot be taken back."""

from __future__ import annotations

import sys

from quintet_cli.errors import CliError
from quintet_cli.settings import Settings


def need_somebody(settings: Settings, what: str) -> None:
    """Raise `CliError` (usage) where nobody can be asked whether to do `what`:
    in scripts, and without a terminal."""
    if settings.json or not sys.stdin.isatty():
        raise CliError(f"{what} needs a yes", advice="give --yes", usage=True)
