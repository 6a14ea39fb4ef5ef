"""The embedded PostgreSQL server, for real."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import psycopg

from quintet_local import process
from quintet_local.postgres import Postgres, running_postgres


def rows(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        result = connection.execute(statement.encode())
        return result.fetchall() if result.description else []


def test_a_database_starts_empty_and_has_the_extensions(database_url: str) -> None:
    assert rows(database_url, "SELECT FROM pg_tables WHERE schemaname = 'public'") == []
    for extension in ("vector", "pg_trgm", "unaccent", "btree_gin"):
        rows(database_url, f"CREATE EXTENSION {extension}")
    assert rows(database_url, "SELECT '[3,4]'::vector <-> '[0,0]'") == [(5.0,)]


async def test_data_outlives_a_stop_and_the_password_is_for_us_alone(tmp_path: Path) -> None:
    async with running_postgres(tmp_path) as dsn:
        rows(dsn, "CREATE TABLE t AS SELECT 42 AS answer")
    async with running_postgres(tmp_path) as dsn:
        assert rows(dsn, "SELECT answer FROM t") == [(42,)]
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_rows_outlive_a_kill_and_the_restart_keeps_the_port(tmp_path: Path) -> None:
    server = Postgres(tmp_path)
    child = await server.start()
    try:
        port = server.port
        rows(server.dsn, "CREATE TABLE t AS SELECT 42 AS answer")
        os.kill(child.pid, signal.SIGKILL)
        child = await server.start()
        assert server.port == port
        assert rows(server.dsn, "SELECT answer FROM t") == [(42,)]
    finally:
        await process.stop(child, signal.SIGINT, grace=10)


async def test_two_servers_run_in_two_folders(tmp_path: Path) -> None:
    async with running_postgres(tmp_path / "one") as one, running_postgres(tmp_path / "two") as two:
        rows(one, "CREATE TABLE here AS SELECT 1")
        assert rows(two, "SELECT FROM pg_tables WHERE tablename = 'here'") == []


async def test_a_lock_file_that_names_a_stranger_does_not_prevent_a_start(tmp_path: Path) -> None:
    async with running_postgres(tmp_path):
        lines = (tmp_path / "data" / "postmaster.pid").read_text().splitlines()
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        lock = tmp_path / "data" / "postmaster.pid"
        lock.write_text("\n".join([str(sleeper.pid), *lines[1:]]) + "\n")
        owner = (tmp_path / "data").stat()
        os.chown(lock, owner.st_uid, owner.st_gid)
        async with running_postgres(tmp_path) as dsn:
            assert rows(dsn, "SELECT 1") == [(1,)]
        assert sleeper.returncode is None
    finally:
        sleeper.kill()
        await sleeper.wait()
