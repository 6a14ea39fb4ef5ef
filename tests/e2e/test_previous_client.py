"""Contracts are backward compatible by one version: callers of the last one are served, the
gateway of then by the services of now among them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from support import previous_client
from support.gateway import gateway_stub, new_collection
from support.replica import second_gateway
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

ROOT = Path(__file__).parents[2]
SOURCES = ("protos/gen", "servicekit", "services/gateway")
MOON = pb.Document(id="tides", content="The moon moves the tides of the sea.")


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"git history is not here: {done.stderr.decode().strip()}")
    return done.stdout


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway, and what it is built on, as they were before the contracts last changed."""
    # The generated descriptors: they have no comments, which change more often.
    changes = git("log", "-2", "--format=%H", "--", ":(glob)protos/gen/**/*_pb2.py").split()
    if len(changes) < 2:
        pytest.skip("the history goes back to one version of the contracts only")
    archive = git("archive", changes[1].decode(), *SOURCES)
    folder = tmp_path_factory.mktemp("earlier")
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def test_a_caller_with_the_contracts_before_the_present_ones_is_served(
    earlier: Path, stack: TestStack
) -> None:
    contracts = earlier / SOURCES[0]
    assert _texts(contracts) != _texts(ROOT / SOURCES[0])
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


async def test_the_gateway_from_before_works_with_the_present_services(
    earlier: Path, stack: TestStack
) -> None:
    path = os.pathsep.join(str(earlier / it) for it in SOURCES)
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", "import quintet_gateway as it; print(it.__file__)"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.startswith(str(earlier))
    async with (
        second_gateway(stack, path=path) as address,
        gateway_stub(address) as stub,
        new_collection(stub, [MOON]) as name,
    ):
        asked = pb.AskRequest(collection=name, question="What moves the tides?")
        answer = await stub.Ask(asked)
        assert "moon" in answer.answer
        assert not answer.degradations
        asked.question = "What does the moon move?"
        *_, last = [event async for event in stub.AskStream(asked)]
        assert last.HasField("completed")
        found = await stub.Search(pb.SearchRequest(collection=name, query="tides"))
        assert [it.document_id for it in found.hits] == ["tides"]
        assert {it.state for it in (await stub.GetStatus(pb.GetStatusRequest())).services} == {
            pb.SERVICE_STATE_SERVING
        }


def _texts(folder: Path) -> dict[str, str]:
    return {str(it.relative_to(folder)): it.read_text() for it in folder.rglob("*_pb2.py")}
