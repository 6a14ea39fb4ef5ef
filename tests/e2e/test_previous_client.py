"""Contracts are backward compatible by one version: callers of the last one are served."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path

from support import previous_client
from support.earlier import CONTRACTS, ROOT
from support.stack import TestStack


def test_a_caller_with_the_contracts_before_the_present_ones_is_served(
    earlier: Path, stack: TestStack
) -> None:
    contracts = earlier / CONTRACTS
    assert _texts(contracts) != _texts(ROOT / CONTRACTS)
    collection = f"test-{secrets.token_hex(6)}"
    arguments = [str(contracts), stack.gateway, collection]
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
