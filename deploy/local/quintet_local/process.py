"""Starting and stopping of child processes that never outlive us.

Every child dies with its parent, even if that was killed with SIGKILL: the
kernel sends the death signal (`PR_SET_PDEATHSIG`, through util-linux's setpriv)
when the *thread* that started the child ends. So call `start` from a thread
that lives as long as the child should; an event loop's own thread does.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


class StartError(Exception):
    """A server or service could not be started; the message is for its user."""


class Program(Protocol):
    """Something that can be started, stopped and started again."""

    async def start(self) -> Process:
        """Start it and return its process once it is ready to serve.

        Raises `StartError` when it does not get ready; nothing of it runs then.
        """
        ...

    async def stop(self, child: Process) -> None:
        """End a process that `start` returned; one that has ended is left alone."""
        ...


@dataclass(frozen=True, slots=True)
class User:
    """The numeric user and group that a child runs as."""

    uid: int
    gid: int


def setpriv(user: User | None, *options: str) -> list[str]:
    """Return the words before a command that make it run as `user` (None: as we do).

    Raises `StartError` where setpriv is missing.
    """
    program = shutil.which("setpriv", path="/usr/bin:/bin:/usr/local/bin")
    if program is None:
        raise StartError("setpriv is missing; install it with: apt install util-linux")
    become = [f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"] if user else []
    return [program, *become, *options, "--"]


async def start(
    arguments: Sequence[str],
    *,
    log_file: Path,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    folder: Path | None = None,
    user: User | None = None,
    stdin: IO[bytes] | None = None,
) -> Process:
    """Start a program whose output is appended to `log_file`.

    It runs in a session of its own, so that a Ctrl-C in our terminal reaches us
    alone, with exactly the `environment` given, in `folder`, and as `user`
    unless that is None.
    """
    pdeathsig = f"--pdeathsig={death_signal.name.removeprefix('SIG')}"
    with log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *setpriv(user, pdeathsig),
            *arguments,
            stdin=stdin or DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )


async def start_patiently(
    spawn: Callable[[], Awaitable[Process]],
    is_ready: Callable[[Process, float], Awaitable[bool]],
    stop: Callable[[Process], Awaitable[None]],
    *,
    name: str,
    log_file: Path,
    transient: Sequence[str],
    seconds: float,
) -> Process:
    """Start a server, and again while it ends for a cause that passes; return its process.

    `is_ready` waits until it serves, by the monotonic time it is given, and is false if it
    ended instead. `transient` are what the log says of causes that pass: a port that
    another program was faster to take, a lock that a dead server left.

    Raises `StartError`, with the end of the log, when it does not start in `seconds`.
    """
    until = time.monotonic() + seconds
    while True:
        server = await spawn()
        try:
            if await is_ready(server, until):
                return server
        except BaseException:
            await stop(server)
            raise
        said = last_lines(log_file)
        if time.monotonic() > until or not any(sign in said for sign in transient):
            raise StartError(f"{name} does not start:\n{said}")
        await asyncio.sleep(0.2)


async def stop(process: Process, signum: signal.Signals, *, grace: float) -> None:
    """Ask a child to end with `signum`, and kill it after `grace` seconds.

    A child that has ended is left alone.
    """
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signum)
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def last_lines(log_file: Path, *, most: int = 5) -> str:
    """Return the last lines of a log, for an error's message."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 4096))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-most:])
