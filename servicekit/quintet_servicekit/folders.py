"""Folders that are there whole or not at all, whoever makes them at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_whole(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return `folder`; where it is missing, `write` first fills it.

    `write` gets an empty folder beside it, which takes its name when all in it has
    reached the disk. Processes that do this at once each write one of their own;
    the first to finish names it, the others drop theirs. Blocking.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(draft)
        for file in draft.iterdir():
            # The rename may reach the disk before the contents do, unless they
            # are sent first.
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        draft.chmod(0o755)  # mkdtemp's own 0700 would lock out the service's user
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
