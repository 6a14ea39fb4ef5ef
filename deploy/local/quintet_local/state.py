"""The folder of a stack: its lock, its `stack.json`, and its log files.

The lock, not a number in a file, tells whether a stack is running: the kernel
gives it back however its holder ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from quintet_local import passwords
from quintet_local.process import StartError
from quintet_servicekit.api_key import new_key, parsed

API_KEY_FILE = "api-key"
HEADER_FILE = "authorization"

Endpoints = Mapping[str, Mapping[str, str]]
"""What answers where: name of a service or server → kind ("grpc", "metrics",
"dsn", "url", "otlp") → address. Holds no password."""


class AlreadyRunningError(StartError):
    """Another stack runs in this folder."""


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What `stack.json` tells: supervisor's process id, endpoints, children's ids."""

    pid: int
    endpoints: Endpoints
    pids: Mapping[str, int]


class StateFolder:
    """A stack's folder while its lock is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.traces = path / "traces"

    def log_file(self, name: str) -> Path:
        """Return the log file of a service or server."""
        return self.logs / f"{name}.log"

    def api_key(self) -> Path:
        """Return the file with the key of this stack's gateway; a new one is made where
        there is none. Beside it is one with the header for other clients."""
        file, header = self.path / API_KEY_FILE, self.path / HEADER_FILE
        key = parsed(file.read_text().strip()) if file.exists() else None
        if key is None:
            key = new_key()
            passwords.write(key.text, file)
        passwords.write(f"authorization: Bearer {key.text}\n", header)
        return file

    def write(self, info: StackInfo) -> None:
        """Write `stack.json`; a reader sees the old one or the new one."""
        unfinished = self.path / "stack.json.new"
        unfinished.write_text(json.dumps(asdict(info), indent=2) + "\n")
        unfinished.replace(self.path / "stack.json")

    def cap_logs(self, most_bytes: int) -> None:
        """Start each log file anew that is larger than `most_bytes`; what it held
        goes to `<name>.log.1`.

        Their writers go on at the new end, because they append.
        """
        for log in self.logs.glob("*.log"):
            if log.stat().st_size > most_bytes:
                shutil.copyfile(log, log.with_name(log.name + ".1"))
                os.truncate(log, 0)


@contextmanager
def locked(path: Path) -> Iterator[StateFolder]:
    """Make the folder where it is missing, and hold its lock.

    Raises `AlreadyRunningError` when a stack runs there, and `StartError` when
    the folder cannot be written.
    """
    folder = StateFolder(path.absolute())
    try:
        for each in (folder.path, folder.logs, folder.traces):
            # Documents of the user, and pieces of them: for nobody else.
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whatever folder this is in, its version control wants none of it.
        (folder.path / ".gitignore").write_text("*\n")
        lock = (folder.path / "lock").open("w")
    except OSError as error:
        raise StartError(f"cannot write {folder.path}: {error.strerror}") from error
    with lock:
        for _ in range(5):
            if _try_lock(lock, fcntl.LOCK_EX):
                break
            # `find_stack` may hold it for a moment.
            time.sleep(0.1)
        else:
            raise AlreadyRunningError(
                f"a stack is already running in {folder.path}; "
                "stop it, or name another folder with QUINTET_STATE_DIR"
            )
        try:
            yield folder
        finally:
            (folder.path / "stack.json").unlink(missing_ok=True)


def find_stack(path: Path) -> StackInfo | None:
    """Return what runs in the folder `path`; None when nothing does, or not yet."""
    try:
        with (path / "lock").open() as lock:
            if _try_lock(lock, fcntl.LOCK_SH):
                return None
        return StackInfo(**json.loads((path / "stack.json").read_text()))
    except FileNotFoundError:
        return None


def _try_lock(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
