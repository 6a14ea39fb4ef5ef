"""Contracts are backward compatible by one version: callers of the last one are served."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from support import previous_client
from support.stack import TestStack

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"git history is not here: {done.stderr.decode().strip()}")
    return done.stdout


@pytest.fixture(scope="module")
def earlier_contracts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated code as it was before the contracts last changed."""
    changes = git("log", "-2", "--format=%H", "--", "protos/quintet").split()
    if len(changes) < 2:
        pytest.skip("the history goes back to one version of the contracts only")
    archive = git("archive", changes[1].decode(), "protos/gen")
    folder = tmp_path_factory.mktemp("earlier")
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder / "protos" / "gen"


def test_a_caller_with_the_contracts_before_the_present_ones_is_served(
    earlier_contracts: Path, stack: TestStack
) -> None:
    assert _texts(earlier_contracts) != _texts(ROOT / "protos" / "gen")
    collection = f"test-{secrets.token_hex(6)}"
    arguments = [str(earlier_contracts), stack.gateway, collection]
    done = subprocess.run(
        [sys.executable, previous_client.__file__, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ingest"] == "ingested"
    assert found["search"] == ["tides"]
    assert "moon" in found["ask"]
    assert found["citations"]
    assert found["stream"] == found["ask"]
    assert found["last"] == "completed"


def _texts(folder: Path) -> dict[str, str]:
    return {str(it.relative_to(folder)): it.read_text() for it in folder.rglob("*_pb2.py")}
