"""A database that is lost and restored to an earlier state, while a cache remembers a later one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from psycopg import sql
from support.gateway import gateway_stub, ingest
from support.stack import TestStack, stack_in_thread

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_local import binaries

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
QUESTION = "When does the office close?"


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[TestStack]:
    with stack_in_thread(tmp_path / "state") as stack:
        yield stack


class Database:
    """The stack's PostgreSQL, as those who back it up reach it."""

    def __init__(self, stack: TestStack, programs: Path) -> None:
        endpoint = stack.endpoints["postgres"]
        password = Path(endpoint["password_file"]).read_text().strip()
        self.dsn = endpoint["dsn"].replace("@", f":{password}@", 1)
        self._programs = programs

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL's on it."""
        command = [str(self._programs / program), "--dbname", self.dsn, *arguments]
        subprocess.run(command, check=True, timeout=60)

    def lose(self) -> None:
        """Drop it, and make an empty one."""
        name = psycopg.conninfo.conninfo_to_dict(self.dsn)["dbname"]
        other = psycopg.conninfo.make_conninfo(self.dsn, dbname="template1")
        with psycopg.connect(other, autocommit=True) as connection:
            for command in ("DROP DATABASE {} WITH (FORCE)", "CREATE DATABASE {}"):
                connection.execute(sql.SQL(command).format(sql.Identifier(str(name))))

    def execute(self, statements: str) -> None:
        """Run statements on it."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statements.encode())


def step_after_a_restore() -> str:
    """The statements as docs/operations.md gives them."""
    _, _, rest = OPERATIONS.read_text(encoding="utf-8").partition("```sql\n")
    statement = rest.partition("```")[0].strip()
    assert statement.startswith("UPDATE retriever.collection")
    return statement


async def ask(stub: Any, collection: str) -> pb.AskResponse:
    request = pb.AskRequest(collection=collection, question=QUESTION)
    response: pb.AskResponse = await stub.Ask(request, timeout=60)
    assert not response.degradations
    return response


async def write(stub: Any, collection: str, **documents: str) -> str:
    made = [pb.Document(id=name, content=text) for name, text in documents.items()]
    acknowledged = await ingest(stub, collection, made)
    assert all(it.HasField("ingested") for it in acknowledged)
    return acknowledged[-1].ingested.consistency_token


async def test_what_is_restored_is_found_and_nothing_that_was_lost_is_told(
    own_stack: TestStack, tmp_path: Path
) -> None:
    stack = own_stack
    found = await binaries.find(None, None)
    database = Database(stack, found.folder)
    dump = tmp_path / "quintet.dump"
    async with gateway_stub(stack.gateway) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="office"))
        await write(
            stub,
            "office",
            hours="The office closes at five. See [[kitchen]].",
            kitchen="The kitchen is on the second floor.",
        )
        assert "five" in (await ask(stub, "office")).answer

        database.run("pg_dump", "--format=custom", f"--file={dump}")

        # What the backup does not have; the cache keeps answers from it.
        later = await write(stub, "office", hours="The office closes at nine. See [[kitchen]].")
        assert "nine" in (await ask(stub, "office")).answer
        await stub.CreateCollection(pb.CreateCollectionRequest(name="annex"))
        await write(stub, "annex", hours="The office in the annex closes at seven.")
        assert "seven" in (await ask(stub, "annex")).answer

    for name in ("gateway", "retriever"):
        stack.stop(name)
    database.lose()
    database.run("pg_restore", "--exit-on-error", str(dump))
    database.execute(step_after_a_restore())
    for name in ("retriever", "gateway"):
        stack.start(name)

    async with gateway_stub(stack.gateway) as stub:
        listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection="office"))
        assert [it.id for it in listed.documents] == ["hours", "kitchen"]
        # As many writes as were lost would bring the epoch to where it was when the answer
        # was kept that nobody has asked for since.
        await write(stub, "office", garden="The garden is behind the house.")
        assert "five" in (await ask(stub, "office")).answer
        # An earlier token is met by what is left.
        request = pb.AskRequest(
            collection="office",
            question=QUESTION,
            consistency=retriever_pb.Consistency(at_least_as_fresh=later),
        )
        assert "five" in (await stub.Ask(request, timeout=60)).answer
        # A collection may get an id that was given out before.
        await stub.CreateCollection(pb.CreateCollectionRequest(name="annex"))
        await write(stub, "annex", hours="The office in the annex closes at three.")
        assert "three" in (await ask(stub, "annex")).answer
    async with grpc.aio.insecure_channel(stack.gateway) as channel:
        linked = await LinkServiceStub(channel).ListLinks(
            links_pb.ListLinksRequest(collection="office", document_id="hours")
        )
        assert [(it.source_id, it.target_id) for it in linked.links] == [("hours", "kitchen")]
