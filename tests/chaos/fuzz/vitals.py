"""What is looked at in the processes: their ids, memory, files, calls and SQL sessions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psycopg
from support.stack import TestStack

SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
_IN_FLIGHT = re.compile(r"^grpc_server_in_flight\{[^}]*\} (\S+)$", re.MULTILINE)
_FAILED = re.compile(
    r'^grpc_server_handled_total\{grpc_code="(?:INTERNAL|UNKNOWN|DATA_LOSS)",[^}]*\} (\S+)$',
    re.MULTILINE,
)
_BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'
"""


@dataclass(frozen=True, slots=True)
class Vitals:
    """`pids` of all processes; of the services `megabytes` of memory, open `files`, and how
    many calls failed for a reason that nobody foresaw, as the services count them."""

    pids: Mapping[str, int]
    megabytes: Mapping[str, float]
    files: Mapping[str, int]
    failed: Mapping[str, int]


def taken(stack: TestStack) -> Vitals:
    """Look at the processes of a stack."""
    pids = {name: stack.pid(name) for name in (*SERVICES, "postgres", "valkey")}
    watched = {name: pids[name] for name in SERVICES}
    return Vitals(
        pids,
        {name: sum(map(_megabytes, [pid, *_children(pid)])) for name, pid in watched.items()},
        {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in watched.items()},
        {name: int(_sum(_FAILED, _metrics(stack, name))) for name in SERVICES},
    )


def _metrics(stack: TestStack, service: str) -> str:
    opener = build_opener(ProxyHandler({}))
    with opener.open(stack.endpoints[service]["metrics"], timeout=5) as page:
        text: str = page.read().decode()
    return text


def _sum(samples: re.Pattern[str], metrics: str) -> float:
    return sum(float(value) for value in samples.findall(metrics))


def _megabytes(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def logged(stack: TestStack) -> str:
    """Return what the services logged last of errors that nobody foresaw."""
    logs = (stack.state_dir / "logs" / f"{name}.log" for name in SERVICES)
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return "\n".join([line for line in lines if '"unexpected error"' in line][-3:])


async def at_rest(stack: TestStack, seconds: float) -> str:
    """Wait until no call and no SQL statement is under way; return what still is then."""
    left = "nobody looked"
    try:
        async with asyncio.timeout(seconds):
            while left:
                left = await asyncio.to_thread(_under_way, stack)
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    return left


def _under_way(stack: TestStack) -> str:
    found = [
        f"{calls:.0f} calls in the {name}"
        for name in SERVICES
        if (calls := _sum(_IN_FLIGHT, _metrics(stack, name)))
    ]
    with psycopg.connect(dsn_of(stack)) as connection:
        row = connection.execute(_BUSY).fetchone()
        if row and row[0]:
            found.append(f"{row[0]} SQL sessions that are not idle")
    return ", ".join(found)


def dsn_of(stack: TestStack) -> str:
    """Return the DSN of the stack's database, with its password."""
    endpoint = stack.endpoints["postgres"]
    password = Path(endpoint["password_file"]).read_text(encoding="ascii").strip()
    return psycopg.conninfo.make_conninfo(endpoint["dsn"], password=password)
