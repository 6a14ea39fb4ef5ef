"""The supervisor with the real services, its crashes and its restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.stack import START_SECONDS, TestStack, stack_in_thread

from quintet_local.postgres import NAME
from quintet_local.state import AlreadyRunningError, find_stack
from quintet_local.supervisor import SERVICES
from quintet_servicekit.channel import open_channel
from quintet_servicekit.settings import ChannelSettings

GATEWAY = "quintet.gateway.v1.GatewayService"

KILLED = """
import asyncio, json, sys
from pathlib import Path
from quintet_local.supervisor import running_stack

async def main():
    async with running_stack(Path(sys.argv[1])) as stack:
        print(json.dumps(stack.pids), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: str, holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, condition
        time.sleep(0.1)


def rows(stack: TestStack, statement: str) -> list[tuple[object, ...]]:
    postgres = stack.endpoints["postgres"]
    password = Path(postgres["password_file"]).read_text()
    with psycopg.connect(postgres["dsn"], password=password, autocommit=True) as connection:
        result = connection.execute(statement.encode())
        return result.fetchall() if result.description else []


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """State folder and process ids of a stack whose supervisor was killed."""
    folder = tmp_path_factory.mktemp("killed") / "state"
    # Behind a proxy that leads nowhere: services of one machine need none.
    proxied = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org"}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True, env=proxied
    ) as supervisor:
        assert supervisor.stdout
        pids = json.loads(supervisor.stdout.readline())
        supervisor.send_signal(signal.SIGKILL)
    return folder, pids


@pytest.fixture(scope="module")
def revived(killed: tuple[Path, dict[str, int]]) -> Iterator[TestStack]:
    """A stack in the folder of the killed one, started at once."""
    with stack_in_thread(killed[0]) as stack:
        yield stack


@pytest.mark.timeout(2 * START_SECONDS)
def test_a_killed_supervisor_leaves_no_process_and_a_folder_to_start_in(
    killed: tuple[Path, dict[str, int]], revived: TestStack
) -> None:
    assert killed[1].keys() == {*SERVICES, "postgres", "valkey"}
    assert not [name for name, pid in killed[1].items() if is_running(pid)]
    assert all(is_serving(revived.endpoints[name]["grpc"]) for name in SERVICES)


def test_every_service_serves_its_metrics(revived: TestStack) -> None:
    for name in SERVICES:
        with urlopen(revived.endpoints[name]["metrics"], timeout=5) as response:
            assert b"grpc_server_in_flight" in response.read()


async def test_callers_reach_the_gateway_past_a_proxy(
    revived: TestStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_channel(revived.gateway, GATEWAY, ChannelSettings()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_stack_is_found_by_its_folder_and_shows_no_password(revived: TestStack) -> None:
    info = find_stack(revived.state_dir)
    assert info is not None
    assert info.pid == os.getpid()
    assert info.endpoints == revived.endpoints
    assert info.pids == {name: revived.pid(name) for name in info.pids}
    written = (revived.state_dir / "stack.json").read_text()
    for name in ("postgres", "valkey"):
        password = Path(revived.endpoints[name]["password_file"]).read_text()
        assert password and password not in written


def test_a_second_stack_in_the_folder_is_refused_and_the_first_untouched(
    revived: TestStack,
) -> None:
    with pytest.raises(AlreadyRunningError), stack_in_thread(revived.state_dir):
        pass
    assert is_serving(revived.gateway)
    assert find_stack(revived.state_dir) is not None


@pytest.mark.timeout(2 * START_SECONDS)
def test_two_stacks_run_at_once_on_ports_of_their_own(revived: TestStack, stack: TestStack) -> None:
    addresses = [
        address
        for each in (revived, stack)
        for kinds in each.endpoints.values()
        for kind, address in kinds.items()
        if kind != "password_file"
    ]
    assert len(set(addresses)) == len(addresses)
    rows(revived, "CREATE TABLE only_here AS SELECT 1")
    assert rows(stack, "SELECT FROM pg_tables WHERE tablename = 'only_here'") == []
    assert rows(stack, "SELECT current_database()") == [(NAME,)]


@pytest.mark.parametrize("name", ["tokenizer", "gateway"])
def test_a_killed_service_comes_back_at_its_address(revived: TestStack, name: str) -> None:
    before, address = revived.pid(name), revived.endpoints[name]["grpc"]
    os.kill(before, signal.SIGKILL)
    wait_until("a new process", lambda: revived.pid(name) != before, 60)
    assert is_serving(address)
    info = find_stack(revived.state_dir)
    assert info is not None and info.pids[name] == revived.pid(name)


def test_a_killed_database_comes_back_with_its_rows_and_the_stack_recovers(
    revived: TestStack,
) -> None:
    rows(revived, "CREATE TABLE survivor AS SELECT 42 AS answer")
    before = revived.pid("postgres")
    os.kill(before, signal.SIGKILL)
    wait_until("a new process", lambda: revived.pid("postgres") != before, 60)
    assert rows(revived, "SELECT answer FROM survivor") == [(42,)]
    wait_until(
        "a serving retriever", lambda: is_serving(revived.endpoints["retriever"]["grpc"]), 10
    )


def test_a_restart_keeps_the_addresses(revived: TestStack) -> None:
    before = revived.pid("retriever")
    revived.restart("retriever")
    assert revived.pid("retriever") != before
    assert is_serving(revived.endpoints["retriever"]["grpc"])
