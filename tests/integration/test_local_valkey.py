"""The embedded Valkey server, for real."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from quintet_local.ports import HOST
from quintet_local.process import StartError
from quintet_local.valkey import Valkey, running_valkey


def test_a_value_is_kept_and_each_test_finds_an_empty_server(redis_url: str) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.dbsize() == 0
        client.set("key", "value")
        assert client.get("key") == "value"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


async def test_it_asks_for_the_password_and_writes_no_data(tmp_path: Path) -> None:
    async with running_valkey(tmp_path) as url:
        with Redis.from_url(url) as client:
            client.set("key", "value")
        stranger = url.rsplit("@", 1)[1]
        with (
            Redis.from_url(f"redis://{stranger}") as client,
            pytest.raises(AuthenticationError),
        ):
            client.ping()
    assert not list(tmp_path.glob("*.rdb")) + list(tmp_path.glob("*.aof"))  # noqa: ASYNC240


async def test_a_restart_after_a_kill_keeps_port_and_password(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    child = await server.start()
    url = server.url
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    child = await server.start()
    try:
        with Redis.from_url(url) as client:
            assert client.ping() is True
    finally:
        await server.stop(child)


async def test_a_port_of_somebody_else_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quintet_local.valkey.START_SECONDS", 0.3)
    with (
        socket.create_server((HOST, 0)) as other,
        pytest.raises(StartError, match="Address already in use"),
    ):
        await Valkey(tmp_path, port=other.getsockname()[1]).start()
