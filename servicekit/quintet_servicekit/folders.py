"""Folders that are there whole or not at all, whoever makes them at once, and such that go
with the process that made them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def passing(prefix: str) -> Iterator[Path]:
    """Yield a new temporary folder that only this user can enter, and remove it after.

    Those of processes that were killed are removed by the next one that asks: a lock, which
    goes with the process, tells whose are in use. Blocking, for as long as that takes.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # in use, another user's, or just removed
            descriptor = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
            finally:
                os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir():
            break
        os.close(descriptor)  # taken for a killed process's before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
