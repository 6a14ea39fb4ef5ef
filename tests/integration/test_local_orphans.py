"""What is left of our children when we are killed: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from quintet_local.postgres import running_postgres

PARENT = """
import asyncio, sys
from pathlib import Path
import psycopg
from quintet_local.postgres import Postgres
from quintet_local.valkey import Valkey

async def main():
    folder = Path(sys.argv[1])
    postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
    children = await postgres.start(), await valkey.start()
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    print(*(child.pid for child in children), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_servers_end_with_a_parent_that_was_killed_and_acknowledged_rows_stay(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it is read before anything else runs
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_running, pids))
        os.kill(parent.pid, signal.SIGKILL)
    # Started at once, while the old server may still be writing its last.
    async with running_postgres(tmp_path / "postgres") as dsn:
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT answer FROM t").fetchall() == [(42,)]
    until = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs here
    assert not any(map(is_running, pids))
