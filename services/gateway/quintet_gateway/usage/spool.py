"""The outbox of usage: files that entries are appended to before anybody counts them.

An entry is in the kernel's hands when `append` returns, so that the end of the process, of
whatever kind, loses none. The machine's own end loses what is not yet written back, at most
what came since the last `sync`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from quintet_gateway.usage.entry import Entry
from quintet_servicekit import telemetry

SUFFIX = ".usage"
SEGMENT_BYTES = 2**20
"""Size from which on another file is begun, so that what is counted can go: some 5,000
calls."""


class Segment:
    """One file of the outbox, which one process holds at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.id = UUID(path.stem)
        self._path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def new(cls, folder: Path) -> Segment:
        """Begin a file. Raises `OSError`."""
        path = folder / f"{uuid4()}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(path, descriptor)

    @classmethod
    def abandoned(cls, path: Path) -> Segment | None:
        """Take over a file whose process has ended; None if it has not."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(path, descriptor)
        except (BlockingIOError, ValueError):
            os.close(descriptor)
            return None

    def append(self, line: bytes) -> None:
        """Add a line. Raises `OSError`, and then has not added any of it."""
        written = os.write(self._descriptor, line)
        if written != len(line):  # the disk is full
            os.ftruncate(self._descriptor, self.size)
            raise OSError("the outbox takes no more")
        self.size += written

    def read(self, start: int, most: int) -> tuple[list[Entry], int]:
        """Return the entries from the byte `start` on, about `most` bytes of them, and where
        the next one begins.

        The last line of a machine that stopped may be torn: what does not end is no entry yet.
        """
        data = os.pread(self._descriptor, most, start)
        end = data.rfind(b"\n") + 1
        entries = []
        for line in data[:end].splitlines():
            try:
                entries.append(Entry.unpacked(line))
            except ValueError:
                telemetry.logger().error("an entry of the usage's outbox is damaged")
        return entries, start + end

    def sync(self) -> None:
        """Return when what was added would outlast the machine."""
        os.fdatasync(self._descriptor)

    def drop(self) -> None:
        """Delete the file, which is counted."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Leave the file to others."""
        os.close(self._descriptor)


@dataclass(slots=True)
class Spool:
    """The outbox of one gateway: a file that is written to, and those before it that are
    not counted yet."""

    folder: Path
    current: Segment
    older: list[Segment]

    @classmethod
    def opened(cls, folder: Path) -> Spool:
        """Open the outbox in a folder, with what processes before have left there. Raises
        `OSError`."""
        folder.mkdir(parents=True, exist_ok=True)
        spool = cls(folder, Segment.new(folder), [])
        spool.adopt()
        return spool

    def adopt(self) -> None:
        """Take over what processes have left that have ended."""
        mine = {it.id for it in (self.current, *self.older)}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(ValueError):
                if UUID(path.stem) not in mine and (left := Segment.abandoned(path)) is not None:
                    self.older.append(left)

    def append(self, entry: Entry) -> None:
        """Add an entry. Raises `OSError`."""
        if self.current.size >= SEGMENT_BYTES:
            following = Segment.new(self.folder)
            self.older.append(self.current)
            self.current = following
        self.current.append(entry.packed())

    def close(self) -> None:
        """Leave the files to the next process; an empty one goes."""
        for segment in self.older:
            segment.close()
        if self.current.size:
            self.current.close()
        else:
            self.current.drop()
