"""Whether an inspection finds what it is there to find."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql
from support.stack import TestStack

from chaos.inspection import Stubs, inspect, orphans
from chaos.shelf import Shelf, Text
from chaos.stack_access import dsn_of, stubs_of
from quintet.gateway.v1 import gateway_service_pb2 as pb


@pytest.fixture
async def stubs(stack: TestStack) -> AsyncIterator[Stubs]:
    async with stubs_of(stack) as opened:
        yield opened


@pytest.fixture
async def shelf(stubs: Stubs) -> AsyncIterator[Shelf]:
    """Five documents that were acknowledged."""
    name = f"inspected-{secrets.token_hex(4)}"
    await stubs.gateway.CreateCollection(pb.CreateCollectionRequest(name=name))
    it = Shelf([name], random.Random(5))
    sent = [it.new() for _ in range(5)]
    requests = [document.send(it.text()) for document in sent]
    async for response in stubs.gateway.Ingest(iter(requests)):
        assert response.HasField("ingested")
    for document in sent:
        it.acknowledge(document)
    yield it
    await stubs.gateway.DeleteCollection(pb.DeleteCollectionRequest(name=name))


async def test_nothing_is_wrong_with_documents_that_are_as_they_were_acknowledged(
    shelf: Shelf, stubs: Stubs, stack: TestStack
) -> None:
    assert await inspect(shelf, stubs, dsn_of(stack)) == []
    assert orphans(stack) == []


async def test_what_is_lost_altered_or_left_over_is_told(
    shelf: Shelf, stubs: Stubs, stack: TestStack
) -> None:
    lost, altered, unknown, chunkless, _ = shelf.documents
    name = lost.collection
    await stubs.gateway.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id=lost.id))
    altered.may_be = [Text("other", "Something else was acknowledged.")]
    unknown.may_be = [None]
    with psycopg.connect(dsn_of(stack), autocommit=True) as connection:
        row = connection.execute("SELECT id FROM retriever.collection WHERE name = %s", [name])
        ((number,),) = row.fetchall()
        connection.execute(
            sql.SQL("DELETE FROM {} USING {} AS d WHERE document_key = d.key AND d.id = %s").format(
                sql.Identifier("retriever", f"chunk_{number}"),
                sql.Identifier("retriever", f"document_{number}"),
            ),
            [chunkless.id],
        )
    told = await inspect(shelf, stubs, dsn_of(stack))
    assert f"{name}/{lost.id} is acknowledged and not there" in told
    assert any(each.startswith(f"{name}/{altered.id} is none of what it may be") for each in told)
    assert any(each.startswith(f"{name}/{unknown.id} is none of what it may be") for each in told)
    assert f"{name}/{chunkless.id} has 0 chunks" in told
    assert any(each.startswith(f"{name} counts ") for each in told)


def test_a_process_that_its_supervisor_does_not_know_is_told(stack: TestStack) -> None:
    port = stack.endpoints["gateway"]["grpc"].rpartition(":")[2]
    stray = subprocess.Popen(["sleep", "60"], env={**os.environ, "QUINTET_GATEWAY_PORT": port})
    try:
        assert orphans(stack) == [f"gateway {stray.pid}"]
    finally:
        stray.kill()
        stray.wait()
