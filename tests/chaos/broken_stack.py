"""A stack each part of which can be broken, in all ways, and mended again.

A proxy stands before each service, before PostgreSQL and before Valkey: the gateway, the
retriever, and whoever has a cache, call through it, and so do the gateway's callers. All of
it runs on the caller's event loop.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from chaos import processes
from chaos.proxy import FaultProxy, Mode
from quintet_local.ports import ReservedPort
from quintet_local.postgres import Postgres
from quintet_local.settings import LocalSettings
from quintet_local.supervisor import SERVICES, Member, Stack, running_stack
from quintet_local.valkey import Valkey

POSTGRESQL = "postgresql"
VALKEY = "valkey"
PARTS = (POSTGRESQL, VALKEY, *SERVICES)

KILLED, FROZEN, DISK = "killed", "frozen", "out of disk"
_MODES = {
    "refusing": Mode.REFUSE,
    "black-holed": Mode.BLACK_HOLE,
    "slow by 500 ms": Mode.SLOW,
    "slow drip": Mode.DRIP,
    "resets": Mode.RESET,
}
FAULTS = (KILLED, FROZEN, *_MODES, DISK)

_VOLUME_BYTES = 400 * 2**20
_POSTGRES = {
    # What the volume must have room for.
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "shared_buffers": "64MB",
}


class BrokenStack:
    """A running stack; `volume` is PostgreSQL's own, where there is one."""

    def __init__(
        self,
        stack: Stack,
        proxies: dict[str, FaultProxy],
        servers: dict[str, Member],
        volume: Path | None,
    ) -> None:
        self.state_dir = stack.state_dir
        self._stack = stack
        self._proxies = proxies
        self._servers = servers
        self._volume = volume

    @property
    def gateway(self) -> str:
        """Address at which callers reach the gateway."""
        return self._proxies["gateway"].address

    def can(self, part: str, fault: str) -> bool:
        """Whether a fault can be done to a part here."""
        return fault != DISK or (part == POSTGRESQL and self._volume is not None)

    def pid(self, part: str) -> int:
        """Return the id of a part's present process."""
        if part in self._servers:
            process = self._servers[part].process
            assert process is not None
            return process.pid
        return self._stack.process(part).pid

    @asynccontextmanager
    async def broken(self, part: str, fault: str) -> AsyncIterator[None]:
        """Break a part; at the end it is as it was: a process that was killed is ready."""
        if fault == KILLED:
            for pid in processes.family(self.pid(part)):
                processes.send(pid, signal.SIGKILL)
            # Or else its supervisor starts it at once.
            await self._stop(part)
            try:
                yield
            finally:
                await self._start(part)
        elif fault == FROZEN:
            family = processes.family(self.pid(part))
            for pid in family:
                processes.send(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                for pid in family:
                    processes.send(pid, signal.SIGCONT)
        elif fault == DISK:
            assert self._volume is not None
            filler = self._volume / "filler"
            _fill(filler)
            try:
                yield
            finally:
                filler.unlink()
        else:
            proxy = self._proxies[part]
            await proxy.be(_MODES[fault])
            try:
                yield
            finally:
                await proxy.be(Mode.PASS)

    async def _stop(self, part: str) -> None:
        await (self._servers[part].stop() if part in self._servers else self._stack.stop(part))

    async def _start(self, part: str) -> None:
        await (self._servers[part].start() if part in self._servers else self._stack.start(part))


@asynccontextmanager
async def broken_stack(folder: Path, seed: int = 1) -> AsyncIterator[BrokenStack]:
    """Run a stack in a folder, all of it well."""
    async with AsyncExitStack() as resources:
        proxies = {part: FaultProxy(seed=seed + place) for place, part in enumerate(PARTS)}
        for proxy in proxies.values():
            await proxy.start()
            resources.push_async_callback(proxy.close)
        volume = resources.enter_context(_volume(folder / "volume"))
        settings = LocalSettings(max_restarts=1000, steady_seconds=1)
        postgres = Postgres(
            (volume or folder) / POSTGRESQL,
            options=_POSTGRES,
            log_file=folder / "postgres.log",
            bin_folder=settings.postgres_bin,
        )
        valkey = Valkey(folder / VALKEY, log_file=folder / "valkey.log")
        servers = {
            POSTGRESQL: Member(POSTGRESQL, postgres, settings, lambda _: None),
            VALKEY: Member(VALKEY, valkey, settings, lambda _: None),
        }
        for member in servers.values():
            await member.start()
            resources.push_async_callback(member.stop)
        for part, url in ((POSTGRESQL, postgres.dsn), (VALKEY, valkey.url)):
            proxies[part].leads_to = urlsplit(url).port or 0
        cache = _through(proxies[VALKEY], valkey.url)
        environment = {
            name: _through(proxies[POSTGRESQL], url)
            for name, url in postgres.variables("retriever").items()
        }
        for name in SERVICES:
            # Known before it is started, so that the gateway can be led there.
            port = ReservedPort()
            resources.callback(port.close)
            proxies[name].leads_to = port.number
            variable = f"QUINTET_{name.upper()}"
            environment[f"{variable}_PORT"] = str(port.number)
            environment[f"{variable}_CACHE__REDIS_URL"] = cache
            # Traces cost time, and nobody looks at them.
            environment[f"{variable}_OTLP_ENDPOINT"] = ""
            environment[f"QUINTET_GATEWAY_{name.upper()}_ADDRESS"] = proxies[name].address
        running = running_stack(folder / "state", environment=environment, settings=settings)
        stack = await resources.enter_async_context(running)
        yield BrokenStack(stack, proxies, servers, volume)


def _through(proxy: FaultProxy, url: str) -> str:
    """Return a URL that leads through the proxy."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}").geturl()


@contextmanager
def _volume(folder: Path) -> Iterator[Path | None]:
    """Yield a small volume of its own, where we may make one."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        yield None
        return
    folder.mkdir()
    options = f"size={_VOLUME_BYTES},mode=755"
    if subprocess.run([mount, "-t", "tmpfs", "-o", options, "none", str(folder)]).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def _fill(file: Path) -> None:
    """Take all that is left of a file's volume."""
    with file.open("wb", buffering=0) as filler:
        volume = os.statvfs(file.parent)
        with suppress(OSError):
            os.posix_fallocate(filler.fileno(), 0, volume.f_bavail * volume.f_frsize)
        with suppress(OSError):
            filler.seek(0, os.SEEK_END)
            while filler.write(bytes(4096)):
                pass
