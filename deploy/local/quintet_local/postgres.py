"""A PostgreSQL server of our own on one data folder.

The folder keeps everything (`data/`, `password`, and each service's password), survives any
end of the server or of us, and needs no access to its parent folders for the user that the
server runs as.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from quintet_local import binaries, passwords, process
from quintet_local.ports import HOST, free_port
from quintet_local.process import StartError, User
from quintet_local.settings import LocalSettings

NAME = "quintet"
"""Name of the role, the server's superuser, and of the database."""

START_SECONDS = 60.0
"""How long a start may take: recovery of a large log after a crash needs its time."""

STOP_SECONDS = 30.0
"""How long a stop may take; it writes a checkpoint."""

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # A development machine's share; HNSW searches want the index in memory.
    "shared_buffers": "256MB",
    # Five services with a pool of some ten connections each, and a person.
    "max_connections": "100",
    # An HNSW build of 100,000 vectors of 384 dimensions stays in memory.
    "maintenance_work_mem": "256MB",
    # Parallel builds share memory in /dev/shm, of which containers have 64 MB.
    "max_parallel_maintenance_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements may hold the user's documents: never in a log.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}

# The server's own current folder: reached without leave to pass its parents,
# which the user that root runs the server as may well not have.
_DATA_FOLDER = "/proc/self/cwd"

_TRANSIENT = ("postmaster.pid", "Address already in use", "pre-existing shared memory")


class Postgres:
    """A server that can be started, stopped and started again, on the same port.

    `options` are further server settings, `bin_folder` has another server's
    programs. After `start`, `dsn` reaches it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        log_file: Path | None = None,
        bin_folder: Path | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._log = log_file or self._folder / "postgres.log"
        self._options = {**_SETTINGS, **(options or {})}
        self._bin = bin_folder
        self._fixed_port = port
        self.port = port or 0
        self.password = ""

    @property
    def dsn(self) -> str:
        """The owner's connection URI, with its password."""
        return f"postgresql://{NAME}:{self.password}@{HOST}:{self.port}/{NAME}"

    def service_dsn(self, service: str) -> str:
        """Return the connection URI of a service, whose role it makes itself when it first
        migrates; its password is the folder's from then on."""
        file = self._folder / f"password-{service}"
        if not file.exists():
            passwords.write(passwords.new_password(), file)
        return f"postgresql://{NAME}_{service}:{file.read_text()}@{HOST}:{self.port}/{NAME}"

    def variables(self, service: str) -> Mapping[str, str]:
        """Return the environment by which a service works on this server."""
        prefix = f"QUINTET_{service.upper()}"
        return {
            f"{prefix}_DATABASE_URL": self.service_dsn(service),
            f"{prefix}_OWNER_DATABASE_URL": self.dsn,
        }

    @property
    def endpoint(self) -> Mapping[str, str]:
        """What may be shown: the URI without the password, and the file that has it."""
        return {
            "dsn": f"postgresql://{NAME}@{HOST}:{self.port}/{NAME}",
            "password_file": str(self._folder / "password"),
        }

    async def start(self) -> Process:
        """Start the server and return its process once it takes connections.

        Raises `StartError`, with what the server said, when it does not start.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        user = binaries.server_user(self._data)
        programs = await binaries.find(self._bin, user)
        if not (self._data / "PG_VERSION").exists():
            await self._initialise(programs, user)
        self.password = (self._folder / "password").read_text()
        server = await process.start_patiently(
            partial(self._spawn_anew, programs, user),
            self._ready,
            self.stop,
            name=f"PostgreSQL in {self._folder}",
            log_file=self._log,
            transient=_TRANSIENT,
            seconds=START_SECONDS,
        )
        # Restarts keep the port: others know it by now.
        self._fixed_port = self.port
        return server

    async def _spawn_anew(self, programs: binaries.Binaries, user: User | None) -> Process:
        if self._fixed_port is None:
            self.port = free_port()
        self._forget_dead_server()
        return await self._spawn(programs, user)

    async def stop(self, child: Process) -> None:
        """End the server: clients are cut off, and the data is complete on disk."""
        await process.stop(child, signal.SIGINT, grace=STOP_SECONDS)

    async def _initialise(self, programs: binaries.Binaries, user: User | None) -> None:
        """Make the data folder; done in a folder beside it, so that one that was
        interrupted is not taken for a whole one."""
        for leftover in self._folder.glob("initdb-*"):
            shutil.rmtree(leftover)
        unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._folder))
        password = passwords.new_password()
        locale = (
            ["--locale-provider=builtin", "--locale=C.UTF-8"]
            if programs.major >= 17
            else ["--locale=C.UTF-8"]
        )
        with tempfile.TemporaryFile() as pwfile:
            pwfile.write(password.encode() + b"\n")
            pwfile.seek(0)
            if user is not None:
                os.chown(unfinished, user.uid, user.gid)
                os.fchown(pwfile.fileno(), user.uid, user.gid)
            initdb = await process.start(
                [
                    str(programs.folder / "initdb"),
                    f"--pgdata={_DATA_FOLDER}",
                    f"--username={NAME}",
                    "--auth=scram-sha-256",
                    "--pwfile=/dev/stdin",
                    "--encoding=UTF8",
                    *(["--no-sync"] if self._options.get("fsync") == "off" else []),
                    *locale,
                ],
                log_file=self._log,
                death_signal=signal.SIGKILL,
                environment={"LC_ALL": "C", "TZ": "UTC"},
                folder=unfinished,
                user=user,
                stdin=pwfile,
            )
            try:
                status = await initdb.wait()
            finally:
                await process.stop(initdb, signal.SIGKILL, grace=STOP_SECONDS)
            if status != 0:
                raise StartError(f"initdb failed:\n{process.last_lines(self._log)}")
        self._keep(password, unfinished)

    def _keep(self, password: str, finished: Path) -> None:
        passwords.write(password, self._folder / "password")
        finished.rename(self._data)

    async def _spawn(self, programs: binaries.Binaries, user: User | None) -> Process:
        return await process.start(
            [
                str(programs.folder / "postgres"),
                f"-D{_DATA_FOLDER}",
                f"-cport={self.port}",
                *(f"-c{name}={value}" for name, value in self._options.items()),
            ],
            log_file=self._log,
            # A fast shutdown: what was acknowledged is kept, nobody is waited for.
            death_signal=signal.SIGINT,
            environment={"LC_ALL": "C", "TZ": "UTC"},
            folder=self._data,
            user=user,
        )

    async def _ready(self, server: Process, until: float) -> bool:
        """Wait until the server takes connections; False if it ended instead."""
        while server.returncode is None:
            try:
                await self._ensure_database()
                return True
            except psycopg.OperationalError as error:
                if server.returncode is None and time.monotonic() > until:
                    raise StartError(f"PostgreSQL in {self._folder} does not answer") from error
                await asyncio.sleep(0.03)
        return False

    async def _ensure_database(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            host=HOST,
            port=self.port,
            user=NAME,
            password=self.password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )
        async with connection:
            found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", (NAME,))
            if await found.fetchone() is None:
                await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))

    def _forget_dead_server(self) -> None:
        """Remove a lock file whose process is dead, or another program by now.

        The server refuses to start while a process of that number exists: a
        zombie that nobody reaps, or after a restart of the machine a stranger.
        It guards its data by its shared memory as well, so nothing is lost.
        """
        lock = self._data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", 1)[0])
            status = Path(f"/proc/{pid}/stat").read_text()
            zombie = status.rpartition(")")[2].split()[0] == "Z"
            if zombie or Path(f"/proc/{pid}/cwd").readlink() != self._data:
                lock.unlink()
        except (OSError, ValueError):
            # Gone meanwhile, or not ours to look at: the server itself decides.
            return


@asynccontextmanager
async def running_postgres(
    data_dir: Path,
    *,
    port: int | None = None,
    options: Mapping[str, str] | None = None,
    log_file: Path | None = None,
) -> AsyncIterator[str]:
    """Run a server on `data_dir` and yield its DSN, with the password.

    The folder is made when it is not there and kept at the end. `port` None asks
    the system for one; `options` are further server settings.
    """
    server = Postgres(
        data_dir,
        port=port,
        options=options,
        log_file=log_file,
        bin_folder=LocalSettings().postgres_bin,
    )
    child = await server.start()
    try:
        yield server.dsn
    finally:
        await server.stop(child)
