"""Quintet as it was before its contracts last changed, from the history of this checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = "protos/gen"


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"git history is not here: {done.stderr.decode().strip()}")
    return done.stdout


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contracts, the kit and the services of then."""
    # The generated descriptors: they have no comments, which change more often.
    changes = _git("log", "-2", "--format=%H", "--", f":(glob){CONTRACTS}/**/*_pb2.py").split()
    if len(changes) < 2:
        pytest.skip("the history goes back to one version of the contracts only")
    archive = _git("archive", changes[1].decode(), CONTRACTS, "servicekit", "services")
    folder = tmp_path_factory.mktemp("earlier")
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def python_path(earlier: Path, service: str) -> str:
    """Return the PYTHONPATH by which a service runs as it was."""
    return os.pathsep.join(
        str(earlier / it) for it in (CONTRACTS, "servicekit", f"services/{service}")
    )
