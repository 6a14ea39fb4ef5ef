"""What a user would pick instead, each in an environment of its own under `build/`.

An environment is made when a bench first asks for it, from `requirements-<peer>.txt`,
and again when that file changes. A peer that cannot be installed is told of by name.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from bench.worker import ROOT

FOLDER = ROOT / "build" / "bench-peers"
INSTALL_TORCH = ROOT / "deploy" / "local" / "install_torch.py"


class MissingPeerError(Exception):
    """A peer cannot be run here; the message says which and why."""


def requirements(peer: str) -> Path:
    """Return the file with a peer's pinned requirements."""
    return ROOT / "bench" / f"requirements-{peer}.txt"


async def python_of(peer: str, say: Callable[[str], None]) -> Path:
    """Return the Python of a peer's environment, which is made if need be.

    Raises `MissingPeerError`.
    """
    folder = FOLDER / peer
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = requirements(peer).read_text()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    torch = _pinned("torch")
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), str(INSTALL_TORCH), torch],
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements(peer))],
    ]
    for number, step in enumerate(steps, start=1):
        say(f"{peer}: installing, step {number} of {len(steps)}")
        process = await asyncio.create_subprocess_exec(
            *step, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        if process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise MissingPeerError(f"{peer} could not be installed: {(lines or ['?'])[-1]}")
    stamp.write_text(wanted)
    return python


def _pinned(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))
