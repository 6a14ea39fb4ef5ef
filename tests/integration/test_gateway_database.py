"""The gateway's own database: made once, and never waited for."""

from __future__ import annotations

import asyncio
import secrets
import signal
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.postgres import FAST, service_url

from quintet_gateway import database as gateway_database
from quintet_gateway.database import SCHEMA, Database, open_database
from quintet_gateway.settings import Settings
from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_servicekit.background import beside
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import migrate

ONE = Operation("SELECT", "one"), Statement(sql.SQL("SELECT 1 AS one"))


def settings_for(url: str) -> Settings:
    return Settings(database_url=SecretStr(service_url(url)), owner_database_url=SecretStr(url))


async def ready(database: Database) -> None:
    async with asyncio.timeout(20):
        await database.migrated.wait()


async def test_of_three_gateways_that_start_together_one_migrates(database_url: str) -> None:
    ran = await asyncio.gather(
        *[migrate(database_url, SCHEMA, connect_timeout=5, lock_timeout=30) for _ in range(3)]
    )
    versions = [migration.version for migration in SCHEMA.shipped()]
    assert sorted(version for replica in ran for version in replica) == versions
    assert versions == list(range(1, len(versions) + 1))


async def test_without_a_url_there_is_no_database() -> None:
    async with open_database(Settings()) as database:
        assert database is None


async def test_a_gateway_that_starts_before_its_database_uses_it_once_it_is_there(
    tmp_path: Path,
) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    await process.stop(running, signal.SIGINT, grace=10)
    async with open_database(settings_for(server.dsn)) as database:
        assert database is not None
        with pytest.raises(ServiceError) as caught:
            await database.run(*ONE)
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        running = await server.start()
        await ready(database)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await database.run(*ONE) == [{"one": 1}]
                    break
                except ServiceError:
                    await asyncio.sleep(0.05)
    await process.stop(running, signal.SIGINT, grace=10)


async def test_an_owner_without_rights_is_told_of_and_gets_on_once_it_has_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = f"owner_{secrets.token_hex(4)}"
    poor = make_conninfo(database_url, user=owner, password=owner)
    with psycopg.connect(database_url, autocommit=True) as connection:
        named = sql.Identifier(owner)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(named, owner))
    monkeypatch.setattr(gateway_database, "beside", partial(beside, pause=0.05))
    settings = Settings(
        database_url=SecretStr(service_url(database_url)), owner_database_url=SecretStr(poor)
    )
    with capture_logs() as logs:
        async with open_database(settings) as database:
            assert database is not None
            async with asyncio.timeout(20):
                while not any(it["event"] == "background work failed" for it in logs):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert not database.migrated.is_set()
            with psycopg.connect(database_url, autocommit=True) as connection:
                grant = sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(owner))
                connection.execute(grant)
            await ready(database)


async def test_days_around_today_have_a_partition_and_those_that_are_too_old_go(
    database_url: str,
) -> None:
    async with open_database(settings_for(database_url)) as database:
        assert database is not None
        await ready(database)
    with psycopg.connect(database_url, autocommit=True) as connection:

        def days_ago() -> set[int]:
            rows = connection.execute(
                "SELECT (now() AT TIME ZONE 'UTC')::date"
                " - to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD')"
                " FROM pg_inherits WHERE inhparent = 'gateway.answer'::regclass"
            )
            return {days for (days,) in rows}

        for days in (9, 8, 7, 6):
            connection.execute(
                "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - %(days)s; BEGIN"
                " EXECUTE format('CREATE TABLE gateway.%%I PARTITION OF gateway.answer"
                " FOR VALUES FROM (%%L) TO (%%L)', 'answer_' || to_char(day, 'YYYYMMDD'),"
                " gateway.first_answer_id(day), gateway.first_answer_id(day + 1)); END $$".replace(
                    "%(days)s", str(days)
                ).replace("%%", "%")
            )
        for _ in range(2):  # once more changes nothing
            connection.execute("SELECT gateway.renew_answer_days(7, false)")
            assert days_ago() == {7, 6, 1, 0, -1, -2}
