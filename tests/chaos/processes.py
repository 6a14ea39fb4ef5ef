"""Processes of this machine, by what /proc tells."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, itself first."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def with_environment(assignment: str) -> set[int]:
    """Return the processes in whose environment a variable is as given ("NAME=value")."""
    wanted = assignment.encode()
    found = set()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def in_folder(place: Path) -> set[int]:
    """Return the processes whose current folder is that one."""
    found = set()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "cwd").readlink() == place.resolve():
                found.add(int(folder.name))
    return found


def is_backend(pid: int) -> bool:
    """Whether a process is one in which PostgreSQL serves a client."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return title.startswith(b"postgres: quintet ")
