"""Passwords of our own servers, each in a file for its owner alone."""

from __future__ import annotations

import secrets
from pathlib import Path


def new_password() -> str:
    """Return 192 random bits in characters that need no quoting anywhere."""
    return secrets.token_urlsafe(24)


def write(password: str, file: Path) -> None:
    """Write the file anew, with mode 0600 from its first byte on."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(password)
