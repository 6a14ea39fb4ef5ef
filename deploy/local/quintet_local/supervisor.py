"""Runs the whole of Quintet on this machine, for as long as a context lasts.

    async with running_stack(Path(".quintet"), on_progress=print) as stack:
        ...  # stack.gateway is the address to call

PostgreSQL, Valkey, a receiver of traces and the five services start together,
are kept running, and end in order: nothing is cut off by the order, and nothing
outlives the process that this runs in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quintet_local.otlp import running_receiver
from quintet_local.postgres import Postgres
from quintet_local.process import Program, StartError
from quintet_local.service import Service
from quintet_local.settings import LocalSettings
from quintet_local.state import Endpoints, StackInfo, StateFolder, locked
from quintet_local.traces import TraceStore
from quintet_local.valkey import Valkey
from quintet_servicekit.key_files import write_key_pair

SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
_WITH_DATABASE = ("retriever", "gateway")

OPEN = {
    "QUINTET_GATEWAY_ACCESS__MODE": "open",
    **{f"QUINTET_{name.upper()}_IDENTITY__REQUIRED": "false" for name in SERVICES[:-1]},
}
"""Environment of a stack that anybody on this machine may ask without a key, and whose
services may be called past the gateway: for tests and measurements."""

State = Literal["starting", "ready", "restarting", "failed", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Progress:
    """News of one service or server: for "ready" and "stopped" the `seconds` that
    it took, for "restarting" and "failed" what happened."""

    name: str
    state: State
    seconds: float = 0.0
    detail: str = ""


Report = Callable[[Progress], None]


class Member:
    """A program that is kept running, and what is reported about it."""

    def __init__(
        self, name: str, program: Program, settings: LocalSettings, report: Report
    ) -> None:
        self.name = name
        self.program = program
        self.process: Process | None = None
        self._settings = settings
        self._report = report
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the program; from then on it is started again when it ends."""
        began = time.monotonic()
        self._report(Progress(self.name, "starting"))
        self.process = await self.program.start()
        self._watching = asyncio.create_task(self._watch(self.process))
        self._report(Progress(self.name, "ready", time.monotonic() - began))

    async def stop(self) -> None:
        """End the program; it is not started again."""
        if self._watching is None:
            return
        self._watching.cancel()
        await asyncio.wait([self._watching])
        self._watching = None
        began = time.monotonic()
        self._report(Progress(self.name, "stopping"))
        if self.process is not None:
            await self.program.stop(self.process)
        self._report(Progress(self.name, "stopped", time.monotonic() - began))

    async def _watch(self, child: Process) -> None:
        attempts = 0
        while True:
            began = time.monotonic()
            cause = _ending(await child.wait())
            if time.monotonic() - began > self._settings.steady_seconds:
                attempts = 0
            while True:
                if attempts == self._settings.max_restarts:
                    self._report(Progress(self.name, "failed", detail=cause))
                    return
                pause = min(0.2 * 2**attempts, 10.0)
                attempts += 1
                self._report(Progress(self.name, "restarting", detail=cause))
                await asyncio.sleep(pause)
                began = time.monotonic()
                try:
                    child = self.process = await self.program.start()
                    break
                except (StartError, OSError) as error:
                    cause = str(error)
            self._report(Progress(self.name, "ready", time.monotonic() - began))


def _ending(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    return f"it was ended by {signal.Signals(-status).name}"


class Stack:
    """A running stack."""

    def __init__(self, state_dir: Path, members: Mapping[str, Member], endpoints: Endpoints):
        self.state_dir = state_dir
        self.endpoints = endpoints
        self._members = members

    @property
    def gateway(self) -> str:
        """Address of the gateway's gRPC server."""
        return self.endpoints["gateway"]["grpc"]

    def process(self, name: str) -> Process:
        """Return the present process of a service, or of "postgres" or "valkey"."""
        process = self._members[name].process
        if process is None:
            raise LookupError(f"{name} has not been started")
        return process

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids of what runs, by name."""
        return {
            name: member.process.pid
            for name, member in self._members.items()
            if member.process is not None and member.process.returncode is None
        }

    async def stop(self, name: str) -> None:
        """End one service or server; it stays away until `start`."""
        await self._members[name].stop()

    async def start(self, name: str) -> None:
        """Start one service or server that was ended; it has the addresses that it had."""
        await self._members[name].start()

    async def restart(self, name: str) -> None:
        """End one service or server and start it again."""
        await self.stop(name)
        await self.start(name)


@asynccontextmanager
async def running_stack(
    state_dir: Path,
    *,
    on_progress: Report = lambda _: None,
    environment: Mapping[str, str] | None = None,
    settings: LocalSettings | None = None,
) -> AsyncIterator[Stack]:
    """Run a stack that keeps its state in `state_dir`, and yield it once all is ready.

    `environment` overlays ours, for the services. What the user has set there is
    kept: ports, addresses, a database or a Redis (then none is started), a trace
    receiver.

    Raises `AlreadyRunningError` when a stack runs in that folder, and
    `StartError`, with the end of its log, when something does not start.
    """
    settings = settings or LocalSettings()
    values = {**os.environ, **(environment or {})}
    # Our own calls stay on this machine, whatever proxy leads out of it.
    hosts = [values.get("no_proxy") or values.get("NO_PROXY"), "127.0.0.1", "localhost"]
    values["no_proxy"] = ",".join(filter(None, hosts))
    with locked(state_dir) as folder:
        async with AsyncExitStack() as resources:
            traces: Mapping[str, str] = {}
            if not values.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
                store = TraceStore(folder.traces, most=settings.max_traces)
                address = await resources.enter_async_context(running_receiver(store))
                values["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{address}"
                traces = {"otlp": f"http://{address}"}
            plan = _Plan(folder, settings, values, on_progress, resources)
            capping = asyncio.create_task(_cap_logs(folder, settings))
            resources.callback(capping.cancel)
            try:
                await plan.start()
                stack = Stack(folder.path, plan.members, plan.endpoints(traces))
                plan.on_ready = lambda: folder.write(
                    StackInfo(os.getpid(), stack.endpoints, stack.pids)
                )
                plan.on_ready()
                yield stack
            finally:
                await plan.stop()


class _Plan:
    """What is started, in which order, and with which addresses."""

    def __init__(
        self,
        folder: StateFolder,
        settings: LocalSettings,
        environment: Mapping[str, str],
        report: Report,
        resources: AsyncExitStack,
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._report_on = report
        self._services: dict[str, Service] = {}
        for name in SERVICES:
            service = Service(name, environment, log_file=folder.log_file(name), settings=settings)
            resources.callback(service.close)
            self._services[name] = service
        self._vouch(folder)
        # What a question needs after its vector is on the same cores.
        cores = len(os.sched_getaffinity(0))
        self._services["embedder"].configure(
            {"QUINTET_EMBEDDER_PASSAGES_BESIDE_QUERIES": str(max(1, cores // 2))}
        )
        self._services["gateway"].configure(
            {
                f"QUINTET_GATEWAY_{name.upper()}_ADDRESS": self._services[name].address
                for name in SERVICES[:-1]
            }
        )
        # Whose questions these are may see them: they can be asked again by their ids.
        self._services["gateway"].configure(
            {
                "QUINTET_GATEWAY_RECORDS__TEXTS": "true",
                "QUINTET_GATEWAY_USAGE__FOLDER": str(folder.path / "usage"),
            }
        )
        database_url = environment.get("QUINTET_RETRIEVER_DATABASE_URL")
        self._own_database = not database_url
        if database_url:
            owner_url = environment.get("QUINTET_RETRIEVER_OWNER_DATABASE_URL", "")
            self._services["gateway"].configure(
                {
                    "QUINTET_GATEWAY_DATABASE_URL": database_url,
                    "QUINTET_GATEWAY_OWNER_DATABASE_URL": owner_url,
                }
            )
        self._postgres = Postgres(
            folder.path / "postgres",
            log_file=folder.log_file("postgres"),
            bin_folder=settings.postgres_bin,
        )
        self._valkey = Valkey(
            folder.path / "valkey",
            megabytes=settings.valkey_megabytes,
            log_file=folder.log_file("valkey"),
        )
        # Whoever names one for the gateway names it for each service.
        self._own_redis = not environment.get("QUINTET_GATEWAY_CACHE__REDIS_URL")
        programs: dict[str, Program] = {**self._services}
        if self._own_redis:
            programs["valkey"] = self._valkey
        if self._own_database:
            programs["postgres"] = self._postgres
        self.members = {
            name: Member(name, program, settings, self._report)
            for name, program in programs.items()
        }

    def _vouch(self, folder: StateFolder) -> None:
        """Let the gateway tell the services whom a call is for, by a key pair of this run."""
        private, public = folder.path / "identity.key", folder.path / "identity.pem"
        write_key_pair(private, public)
        for name in SERVICES[:-1]:
            self._services[name].configure(
                {f"QUINTET_{name.upper()}_IDENTITY__PUBLIC_KEYS": str(public)}
            )
        self._services["gateway"].configure(
            {
                "QUINTET_GATEWAY_SIGNING__KEY": str(private),
                "QUINTET_GATEWAY_ACCESS__KEY_FILE": str(folder.api_key()),
            }
        )

    def _report(self, progress: Progress) -> None:
        if progress.state == "ready":
            self.on_ready()
        self._report_on(progress)

    async def start(self) -> None:
        """Start everything at once, but for the cache's server, which is there at once
        and whose address all need, and who waits for the database."""
        if self._own_redis:
            await self.members["valkey"].start()
            for name, service in self._services.items():
                service.configure({f"QUINTET_{name.upper()}_CACHE__REDIS_URL": self._valkey.url})
        try:
            async with asyncio.TaskGroup() as group:
                for name, member in self.members.items():
                    if name not in ("postgres", "valkey", *_WITH_DATABASE):
                        group.create_task(member.start())
                if self._own_database:
                    await self.members["postgres"].start()
                for name in _WITH_DATABASE:
                    if self._own_database:
                        self._services[name].configure(self._postgres.variables(name))
                    group.create_task(self.members[name].start())
        except ExceptionGroup as failures:
            # The others were cancelled by the first; a user is told of one cause.
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """End the gateway, then what it calls, then what that needs."""
        await self.members["gateway"].stop()
        await asyncio.gather(*(self.members[name].stop() for name in SERVICES[:-1]))
        servers = self.members.keys() - set(SERVICES)
        await asyncio.gather(*(self.members[name].stop() for name in servers))

    def endpoints(self, traces: Mapping[str, str]) -> Endpoints:
        """Return what answers where, without passwords."""
        endpoints: dict[str, Mapping[str, str]] = {
            name: {"grpc": service.address, "metrics": service.metrics_url}
            for name, service in self._services.items()
        }
        if self._own_database:
            endpoints["postgres"] = self._postgres.endpoint
        if self._own_redis:
            endpoints["valkey"] = self._valkey.endpoint
        if traces:
            endpoints["traces"] = traces
        return endpoints


async def _cap_logs(folder: StateFolder, settings: LocalSettings) -> None:
    while True:
        with suppress(OSError):
            await asyncio.to_thread(folder.cap_logs, settings.log_megabytes * 2**20)
        await asyncio.sleep(5)
