"""Settings of the command line; the only place that names environment variables.

Options override them. This module is imported for `--help`: keep it light.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from quintet_cli.errors import KEY_ADVICE, CliError

ADDRESS = "QUINTET_ADDRESS"
"""host:port of a gateway."""
API_KEY = "QUINTET_API_KEY"
"""Key with which the gateway is called."""
API_KEY_FILE = "QUINTET_API_KEY_FILE"
"""File with that key."""
STATE_DIR = "QUINTET_STATE_DIR"
"""Folder of the local stack's data."""
TIMEOUT = "QUINTET_TIMEOUT"
"""Seconds that a call may take."""
TLS_CA = "QUINTET_TLS_CA"
"""File of the authorities, one of which the gateway's certificate is to be of. Unset: no TLS."""
TLS_CERTIFICATE, TLS_KEY = "QUINTET_TLS_CERTIFICATE", "QUINTET_TLS_KEY"
"""Files of our own certificate and its key, for a gateway that asks for one."""
GRPC_VERBOSITY = "GRPC_VERBOSITY"
"""What gRPC's own library logs to standard error; "NONE" unless the user says
otherwise, because each failure is told by us, and in JSON where asked for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command is told."""

    address: str | None = None
    """host:port of the gateway. None: that of the stack in `state_dir`."""
    state_dir: Path = Path(".quintet")
    """Folder of the local stack's data; by default in the current folder, so that
    two projects don't share a stack by accident."""
    api_key: str = field(default="", repr=False)
    """Key with which the gateway is called. Empty: that of the local stack, where its
    address is taken from there."""
    timeout: float | None = None
    """Seconds that a call may take. None: each command's own default."""
    json: bool = False
    """Whether the output is for scripts."""
    tls_ca: Path | None = None
    """Authorities for the gateway's certificate. None: no TLS."""
    tls_certificate: Path | None = None
    """Our own certificate."""
    tls_key: Path | None = None
    """Its key."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Return the settings that the environment gives.

        Raises `CliError` for a timeout that is no positive number, for a file without a key,
        and for a key that none can be.
        """
        key, file = os.environ.get(API_KEY, "").strip(), os.environ.get(API_KEY_FILE)
        if key:
            _check_key(key, f"${API_KEY}")
        return cls(
            address=os.environ.get(ADDRESS) or None,
            state_dir=Path(os.environ.get(STATE_DIR) or ".quintet"),
            api_key=key or (read_key(Path(file)) if file else ""),
            timeout=_seconds(os.environ.get(TIMEOUT, "")),
            tls_ca=_file(TLS_CA),
            tls_certificate=_file(TLS_CERTIFICATE),
            tls_key=_file(TLS_KEY),
        )


def _file(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def read_key(file: Path) -> str:
    """Return the key in a file. Raises `CliError` where there is none."""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        key = ""
    if not key:
        raise CliError(f"{file} holds no API key", advice=KEY_ADVICE, reason="NO_KEY")
    _check_key(key, str(file))
    return key


def _check_key(key: str, where: str) -> None:
    # Metadata can hold no other; gRPC's own error does not say what is wrong.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CliError(f"{where} must hold one API key", advice=KEY_ADVICE, reason="NO_KEY")


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise CliError(f"{TIMEOUT} must be a number of seconds above 0", usage=True)
    return value
