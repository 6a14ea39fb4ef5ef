"""Usage in a real PostgreSQL, with a gateway and a server that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from support.postgres import service_url

from quintet.gateway.v1 import usage_service_pb2 as pb
from quintet_gateway.admission.policies import Policies
from quintet_gateway.admission.policy import Policy
from quintet_gateway.database import open_database
from quintet_gateway.settings import Settings
from quintet_gateway.usage import servicer as servicer_module
from quintet_gateway.usage.entry import Entry, Used
from quintet_gateway.usage.opening import Usage, open_usage
from quintet_gateway.usage.servicer import UsageServicer
from quintet_gateway.usage.settings import UsageSettings
from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

UNLIMITED = Policies(Policy(), None)
ACME, OTHER = Identity("acme", "k1"), Identity("other", "k1")


@asynccontextmanager
async def using(url: str, folder: Path) -> AsyncIterator[Usage]:
    settings = Settings(
        database_url=SecretStr(service_url(url)),
        owner_database_url=SecretStr(url),
        usage=UsageSettings(folder=folder, interval_seconds=0.02),
    )
    async with open_database(settings) as database, open_usage(settings.usage, database) as usage:
        assert usage is not None
        yield usage


def entry(
    tenant: str = "acme",
    key: str = "k1",
    collection: str = "c",
    day: str = "2026-11-01",
    used: Sequence[Used] = (Used("m", 1, 2, 3, 4, 5, 6),),
) -> Entry:
    return Entry(tenant, key, collection, day, "USD", 1, list(used))


def counted(url: str) -> tuple[int, int]:
    """Return calls and cost, by the owner, who sees all tenants'."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(calls) FILTER (WHERE model = ''), 0), coalesce(sum(cost_nanos), 0)"
            ", (SELECT coalesce(sum(cost_nanos), 0) FROM gateway.spending) FROM gateway.usage"
        ).fetchone()
    assert row
    assert row[1] == row[2]
    return int(row[0]), int(row[1])


async def until_counted(url: str, calls: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await asyncio.to_thread(counted, url))[0] >= calls:
                    return
            except (psycopg.errors.UndefinedTable, psycopg.OperationalError):
                pass
            await asyncio.sleep(0.05)


async def test_sums_are_a_tenants_own_by_any_of_their_columns_in_pages(
    database_url: str, tmp_path: Path
) -> None:
    async with using(database_url, tmp_path) as usage:
        for number in range(6):
            usage.writer.put(
                entry(
                    key=f"k{number % 2}",
                    collection=f"c{number % 3}",
                    day=f"2026-11-0{1 + number // 3}",
                    used=[Used("m", 1, 2, 3, 4, 5, 6), Used("e", 0, 0, 0, 10, 1)],
                )
            )
        usage.writer.put(entry("other", used=[Used("m", 1, 1, 1, 1, 1_000)]))
        await until_counted(database_url, 7)
        servicer: Any = UsageServicer(usage.store, UNLIMITED, None)

        async def asked(identity: Identity = ACME, **fields: Any) -> pb.GetUsageResponse:
            request = pb.GetUsageRequest(first_day="2026-11-01", last_day="2026-11-30", **fields)
            with acting_as(identity):
                response: pb.GetUsageResponse = await servicer.GetUsage(request, None)
            return response

        [all_] = (await asked()).rows
        assert (all_.calls, all_.input_tokens, all_.embedding_tokens) == (6, 6, 84)
        assert (all_.cost_nanos, all_.saved_nanos, all_.currency) == (36, 36, "USD")
        [other] = (await asked(OTHER)).rows
        assert (other.calls, other.cost_nanos) == (1, 1_000)

        by_model = {it.model: it for it in (await asked(group_by=[pb.USAGE_GROUP_MODEL])).rows}
        assert {model: it.calls for model, it in by_model.items()} == {"": 6, "e": 6, "m": 6}
        assert by_model["e"].cost_nanos == 6

        groups = [pb.USAGE_GROUP_KEY, pb.USAGE_GROUP_DAY, pb.USAGE_GROUP_COLLECTION]
        whole = (await asked(group_by=groups)).rows
        assert [(it.day, it.collection, it.key) for it in whole] == sorted(
            {(f"2026-11-0{1 + it // 3}", f"c{it % 3}", f"k{it % 2}") for it in range(6)}
        )
        paged: list[pb.UsageRow] = []
        token = ""
        while True:
            page = await asked(group_by=groups, page_size=4, page_token=token)
            paged += page.rows
            token = page.next_page_token
            if not token:
                break
            for wrong in (token[:-6], "AAAA", "é"):
                with pytest.raises(ServiceError) as refused:
                    await asked(group_by=groups, page_token=wrong)
                assert refused.value.reason is Reason.INVALID_PAGE_TOKEN
            with pytest.raises(ServiceError) as refused:
                await asked(OTHER, group_by=groups, page_token=token)
            assert refused.value.reason is Reason.INVALID_PAGE_TOKEN
        assert paged == list(whole)


async def test_pages_of_the_last_days_are_of_the_same_days_though_the_next_begins_in_between(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = [date(2026, 11, 30)]
    monkeypatch.setattr(servicer_module, "today", lambda: day[0])
    async with using(database_url, tmp_path) as usage:
        for its in ("2026-11-01", "2026-11-02", "2026-12-01"):
            usage.writer.put(entry(day=its))
        await until_counted(database_url, 3)
        servicer: Any = UsageServicer(usage.store, UNLIMITED, None)
        request = pb.GetUsageRequest(group_by=[pb.USAGE_GROUP_DAY], page_size=1)
        with acting_as(ACME):
            first = await servicer.GetUsage(request, None)
            day[0] = date(2026, 12, 1)
            request.page_token = first.next_page_token
            second = await servicer.GetUsage(request, None)
    assert [it.day for it in (*first.rows, *second.rows)] == ["2026-11-01", "2026-11-02"]
    assert not second.next_page_token


@pytest.mark.parametrize(
    "fields",
    [
        {"first_day": "2026-11-31"},
        {"first_day": "20261101"},
        {"first_day": "2026-11-02", "last_day": "2026-11-01"},
        {"first_day": "1990-01-01"},
        {"group_by": [pb.USAGE_GROUP_DAY, pb.USAGE_GROUP_DAY]},
        {"group_by": [pb.USAGE_GROUP_UNSPECIFIED]},
        {"page_size": 1_001},
    ],
)
async def test_a_request_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    servicer: Any = UsageServicer(None, UNLIMITED, None)
    with pytest.raises(ServiceError) as refused:
        await servicer.GetUsage(pb.GetUsageRequest(**fields), None)
    assert refused.value.reason is Reason.INVALID_FIELD


async def test_without_a_database_there_is_no_usage() -> None:
    servicer: Any = UsageServicer(None, UNLIMITED, None)
    with pytest.raises(ServiceError) as refused:
        await servicer.GetUsage(pb.GetUsageRequest(last_day="0001-01-05"), None)
    assert refused.value.reason is Reason.NO_DATABASE


CALLER = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from integration.test_gateway_usage import entry, using

async def main():
    async with using({url!r}, Path({folder!r})) as usage:
        for number in range(100_000):
            usage.writer.put(entry())
            print("taken", number + 1, flush=True)
            if number % 20 == 0:
                await asyncio.sleep(0.001)

asyncio.run(main())
"""


def killed_caller(url: str, folder: Path, calls: int) -> int:
    """Run a gateway's part of usage in a process, kill it with SIGKILL after that many calls,
    and return how many it had taken."""
    tests = Path(__file__).parents[1]
    script = CALLER.format(path=[str(tests), *sys.path], url=url, folder=str(folder))
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    taken = 0
    for line in caller.stdout:
        if line.startswith("taken ") and line.endswith("\n"):
            taken = int(line.split()[1])
            if taken == calls:
                os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    assert caller.returncode == -signal.SIGKILL
    return taken


async def test_a_gateway_that_is_killed_loses_no_call_and_counts_none_twice(
    database_url: str, tmp_path: Path
) -> None:
    taken = 0
    for calls in (40, 700):
        taken += await asyncio.to_thread(killed_caller, database_url, tmp_path, calls)
    async with using(database_url, tmp_path):
        await until_counted(database_url, taken)
    calls, cost = await asyncio.to_thread(counted, database_url)
    # One that was in the outbox before the process could tell us so, each time.
    assert taken <= calls <= taken + 2
    assert cost == 5 * calls
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_a_server_that_is_killed_loses_no_call_and_counts_none_twice(tmp_path: Path) -> None:
    # Commits are with the kernel, as they would be on disk.
    server = Postgres(tmp_path / "postgres", port=free_port(), options={"fsync": "off"})
    running = await server.start()
    async with using(server.dsn, tmp_path / "usage") as usage:
        for number in range(600):
            usage.writer.put(entry())
            await asyncio.sleep(0.001)
            if number in (200, 400):
                os.kill(running.pid, signal.SIGKILL)
                await running.wait()
                running = await server.start()
        await until_counted(server.dsn, 600)
    assert await asyncio.to_thread(counted, server.dsn) == (600, 3_000)
    await process.stop(running, signal.SIGINT, grace=10)
