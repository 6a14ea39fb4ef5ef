"""One answer is one trace: its exact tree, across five processes, and what its spans tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from psycopg import sql
from support.gateway import gateway_stub, ingest, new_collection
from support.stack import ALLOWED, TestStack, stack_in_thread
from support.tracing import named, spans_of, tree

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_local.traces import Span

DOCUMENT = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
GATEWAY = "quintet.gateway.v1.GatewayService"

SELECT_HITS = "SELECT chunk SELECT document SELECT collection"
EMBEDDED = """
        embedder MGET
        embedder embeddings all-MiniLM-L6-v2
          embedder batch all-MiniLM-L6-v2"""


def hop(service: str, method: str, work: str = "") -> str:
    """Draw a call of the gateway and the work that it leads to."""
    name = f"quintet.{service}.v1.{service.capitalize()}Service/{method}"
    return f"""
    gateway {name}
      {service} {name}{work}"""


def unanswered(service: str, method: str) -> str:
    """Draw a call that reaches nobody."""
    return f"""
    gateway quintet.{service}.v1.{service.capitalize()}Service/{method}"""


def search(name: str, *work: str) -> str:
    lines = "".join(f"\n          retriever {it}" for it in work)
    return hop("retriever", "Search", f"\n        retriever retrieval {name}{lines}")


def found_by(name: str) -> str:
    looked_up = "\n    gateway MGET"
    return looked_up + hop("embedder", "Embed", EMBEDDED) + search(name, "MGET", SELECT_HITS)


def cold(name: str) -> str:
    return found_by(name) + COUNT + GENERATE


COUNT = hop("tokenizer", "Count")
GENERATE = hop("generator", "GenerateStream", "\n        generator text_completion extractive")


def expected(method: str, body: str = "") -> str:
    lines = [f"gateway {GATEWAY}/{method}"]
    lines += [line[2:] for line in body.splitlines() if line.strip()]
    return "\n".join(lines)


async def spans(stack: TestStack, trace_id: str, tree_of: str) -> list[Span]:
    """Return a trace's spans, which must have that tree."""
    found = await spans_of(stack.state_dir, trace_id, len(tree_of.splitlines()))
    assert tree(found) == tree_of
    return found


@pytest.fixture
async def stub(stack: TestStack) -> AsyncIterator[Any]:
    async with gateway_stub(stack.gateway) as it:
        yield it


@pytest.fixture
async def name(stub: Any) -> AsyncIterator[str]:
    async with new_collection(stub, [DOCUMENT]) as it:
        # The first question also asks for the collection's and generator's models.
        await stub.Ask(pb.AskRequest(collection=it, question="Is honey sweet?"))
        yield it


def caller(number: int) -> tuple[str, tuple[tuple[str, str]]]:
    """Return the id of a caller's trace, and the metadata that carry it."""
    trace_id = f"{number:032x}"
    return trace_id, (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)


async def test_a_new_answer_is_one_tree_of_hops_and_what_they_stand_on(
    stub: Any, stack: TestStack, name: str
) -> None:
    request = pb.AskRequest(collection=name, question="Which thing do bees make?")
    whole = await stub.Ask(request, timeout=20)
    found = await spans(stack, whole.trail.trace_id, expected("Ask", cold(name)))

    assert not any(span.error for span in found)
    root = named(found, "gateway", f"{GATEWAY}/Ask")
    assert root.kind == "server"
    assert root.attributes["rpc.system.name"] == "grpc"
    assert root.attributes["rpc.method"] == f"{GATEWAY}/Ask"
    assert root.attributes["rpc.response.status_code"] == "OK"
    assert root.attributes["quintet.cache.tier"] == "l1"
    assert root.attributes["quintet.cache.outcome"] == "miss"
    assert 19 < root.attributes["quintet.deadline.given"] < 21
    assert "quintet.degraded" not in root.attributes

    clients = [it for it in found if it.kind == "client" and "/" in it.name]
    assert len(clients) == 4
    for client in clients:
        told = client.attributes
        assert told["server.address"] == "127.0.0.1" and told["server.port"] > 0
        assert told["quintet.breaker.state"] == "closed"
        assert 0 < told["quintet.deadline.spent"] < told["quintet.deadline.given"]
        assert 0 < told["quintet.deadline.left"] < 21
    lefts = [it.attributes["quintet.deadline.left"] for it in clients]
    assert lefts == sorted(lefts, reverse=True)

    select = named(found, "retriever", "SELECT")
    assert select.kind == "client"
    assert select.attributes["db.system.name"] == "postgresql"
    assert select.attributes["db.query.summary"] == select.name
    assert select.attributes["db.namespace"] == "quintet"
    assert select.attributes["db.response.returned_rows"] == 1
    redis = named(found, "gateway", "MGET")
    assert (redis.kind, redis.attributes["db.system.name"]) == ("client", "redis")
    assert redis.attributes["db.operation.name"] == "MGET"

    retrieval = named(found, "retriever", "retrieval")
    assert retrieval.attributes["gen_ai.operation.name"] == "retrieval"
    assert retrieval.attributes["gen_ai.data_source.id"] == name
    assert retrieval.attributes["gen_ai.request.top_k"] > 0
    embeddings = named(found, "embedder", "embeddings")
    assert embeddings.attributes["gen_ai.operation.name"] == "embeddings"
    assert embeddings.attributes["gen_ai.usage.input_tokens"] == whole.usage.embedding_tokens
    assert embeddings.attributes["quintet.queue.wait"] >= 0
    batch = named(found, "embedder", "batch")
    assert batch.attributes["quintet.batch.texts"] == batch.attributes["quintet.batch.callers"] == 1
    assert batch.links == [(embeddings.trace_id, embeddings.span_id)]
    generation = named(found, "generator", "text_completion")
    assert generation.attributes["gen_ai.operation.name"] == "text_completion"
    assert generation.attributes["gen_ai.usage.input_tokens"] == whole.usage.prompt_tokens
    assert generation.attributes["gen_ai.usage.output_tokens"] == whole.usage.completion_tokens
    assert generation.attributes["gen_ai.response.finish_reasons"] == ["stop"]


async def test_a_stream_has_the_tree_of_a_whole_answer_and_a_kept_one_is_one_span(
    stub: Any, stack: TestStack, name: str
) -> None:
    request = pb.AskRequest(collection=name, question="Which insect makes honey?")
    events = [event async for event in stub.AskStream(request)]
    again = await stub.Ask(request)
    await ingest(stub, name, [pb.Document(id="wax", content="Bees make wax.")])
    changed = await stub.Ask(request)
    streamed = events[-1].completed.trail.trace_id
    await spans(stack, streamed, expected("AskStream", cold(name)))
    (hit,) = await spans(stack, again.trail.trace_id, expected("Ask"))
    assert hit.attributes["quintet.cache.outcome"] == "hit"
    body = (
        "\n    gateway MGET"
        + search(name, "SELECT collection SELECT change SELECT chunk", SELECT_HITS)
        + COUNT
        + GENERATE
    )
    await spans(stack, changed.trail.trace_id, expected("Ask", body))


async def test_without_a_service_the_tree_ends_there_and_tells_what_was_served_instead(
    stub: Any, stack: TestStack, name: str
) -> None:
    failed_id, metadata = caller(0xFA11ED)
    request = pb.AskRequest(collection=name, question="Who makes honey in summer?")
    stack.stop("tokenizer")
    try:
        degraded = await stub.Ask(request)
        request.fail_if_degraded = True
        request.question = "Who makes honey in winter?"
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Ask(request, metadata=metadata)
    finally:
        stack.start("tokenizer")
    body = found_by(name) + unanswered("tokenizer", "Count")
    found = await spans(stack, degraded.trail.trace_id, expected("Ask", body + GENERATE))
    root = named(found, "gateway", f"{GATEWAY}/Ask")
    assert not root.error and root.attributes["quintet.degraded"] is True
    (event,) = root.events
    assert event.name == "quintet.degradation"
    assert event.attributes == {
        "quintet.degradation.hop": "tokenizer",
        "quintet.degradation.cause": "DEPENDENCY_UNAVAILABLE",
        "quintet.degradation.substitute": "TOKEN_ESTIMATE",
    }
    count = named(found, "gateway", "quintet.tokenizer")
    assert count.error
    assert count.attributes["error.type"] == "UNAVAILABLE"
    assert count.attributes["quintet.error.reason"] == "DEPENDENCY_UNAVAILABLE"

    found = await spans(stack, failed_id, expected("Ask", body))
    root = named(found, "gateway", f"{GATEWAY}/Ask")
    assert root.error
    assert root.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert root.attributes["error.type"] == "UNAVAILABLE"
    assert {it.name for it in found if it.error} == {root.name, count.name}


async def test_a_caller_who_leaves_cancels_the_tree_down_to_the_statement(
    stub: Any, stack: TestStack, name: str
) -> None:
    trace_id, metadata = caller(0xCA9CE1)
    request = pb.AskRequest(collection=name, question="Who sells honey?")
    with (
        psycopg.connect(stack.database_url) as holder,
        psycopg.connect(stack.database_url, autocommit=True) as watcher,
    ):
        (schema,) = holder.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'collection'"
        ).fetchone() or ("",)
        table = sql.Identifier(schema, "collection")
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        call = stub.AskStream(request, metadata=metadata)
        reading = asyncio.ensure_future(call.read())
        waits = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE '%embedding%'"
        )
        async with asyncio.timeout(15):
            while True:
                if watcher.execute(waits).fetchone() != (0,):
                    break
                await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.wait({reading})
        # The retriever's spans end only when the statement has.
        found = await spans(stack, trace_id, expected("AskStream", found_by(name)))
    cancelled = [it for it in found if "CANCELLED" in it.attributes.values()]
    # By the conventions a client's call without OK is an error, a server's cancelled one none.
    assert [(it.service, it.kind, it.error) for it in cancelled] == [
        ("gateway", "server", False),
        ("gateway", "client", True),
        ("retriever", "server", False),
        ("retriever", "internal", False),
        ("retriever", "client", False),
    ]
    assert {it.name for it in found if it.error} == {cancelled[1].name}


async def test_a_callers_trace_goes_on_in_ours(stub: Any, stack: TestStack, name: str) -> None:
    trace_id, metadata = caller(0x0AF7)
    request = pb.SearchRequest(collection=name, query="honey of traced bees")
    found = await stub.Search(request, metadata=metadata)
    assert found.trail.trace_id == trace_id
    body = hop("embedder", "Embed", EMBEDDED) + search(name, "MGET", SELECT_HITS)
    (root, *_) = await spans(stack, trace_id, expected("Search", body))
    assert root.parent_id == "b7ad6b7169203331"


async def test_an_ingested_document_is_one_branch_of_its_stream(
    stub: Any, stack: TestStack, name: str
) -> None:
    document = pb.Document(id="wasps", content="Wasps make no honey.")
    stream = stub.Ingest(iter([pb.IngestRequest(collection=name, document=document)]))
    assert [response.ingested.version async for response in stream] == [1]
    trace_id = dict(await stream.trailing_metadata())["quintet-trace-id"]
    written = (
        "INSERT document DELETE chunk INSERT chunk DELETE name INSERT name DELETE link"
        " INSERT link UPDATE document UPDATE collection INSERT change INSERT outbox"
    )
    branch = (
        hop("retriever", "GetDocument", "\n        retriever SELECT document SELECT collection")
        + hop("tokenizer", "Chunk")
        + hop("embedder", "Embed", EMBEDDED)
        + hop(
            "retriever",
            "UpsertDocuments",
            f"\n        retriever {written}\n        retriever PUBLISH",
        )
    )
    indented = branch.replace("\n", "\n  ")
    found = await spans(
        stack, trace_id, expected("Ingest", f"\n    gateway ingest document{indented}")
    )
    # That a new document was not there is an answer.
    assert not any(span.error for span in found)
    assert (
        named(found, "retriever", "quintet.retriever.v1.RetrieverService/Upsert").attributes[
            "quintet.admission.wait"
        ]
        >= 0
    )


CANARY = "zanzibarine"


async def ask_of_a_canary(stub: Any, name: str) -> str:
    """Bring in and ask for a word that is nowhere else; return the answer's trace."""
    document = pb.Document(id="canary", title=CANARY, content=f"The {CANARY} sings at dawn.")
    document.metadata["colour"] = f"{CANARY}-yellow"
    broken = pb.Document(id="broken", content=f"{CANARY} \x00")
    await ingest(stub, name, [document, broken])
    question = f"When does the {CANARY} sing?"
    answer = await stub.Ask(pb.AskRequest(collection=name, question=question))
    assert CANARY in answer.answer
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Ask(pb.AskRequest(collection=f"no-{name}", question=question))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Ask(pb.AskRequest(collection=name, question=CANARY * 5_000))
    return str(answer.trail.trace_id)


def mentions(folder: Path) -> list[str]:
    return [it.name for it in folder.iterdir() if CANARY in it.read_text(errors="replace")]


async def test_neither_spans_nor_logs_hold_what_is_asked_or_found(
    stub: Any, stack: TestStack, name: str
) -> None:
    trace_id = await ask_of_a_canary(stub, name)
    await spans(stack, trace_id, expected("Ask", cold(name)))
    assert mentions(stack.state_dir / "traces") == []
    assert mentions(stack.state_dir / "logs") == []


async def test_spans_hold_it_where_a_setting_says_so(tmp_path: Path) -> None:
    allowed = {
        f"QUINTET_{it}_TRACE_CONTENT": "true"
        for it in ("TOKENIZER", "EMBEDDER", "RETRIEVER", "GENERATOR", "GATEWAY")
    }
    with stack_in_thread(tmp_path / "state", ALLOWED | allowed) as stack:
        async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
            trace_id = await ask_of_a_canary(stub, name)
            found = await spans_of(stack.state_dir, trace_id, 15)
            retrieval = named(found, "retriever", "retrieval").attributes
            assert CANARY in retrieval["gen_ai.retrieval.query.text"]
            assert '"id": "canary"' in retrieval["gen_ai.retrieval.documents"]
            generation = named(found, "generator", "text_completion").attributes
            assert f"The {CANARY} sings" in generation["gen_ai.input.messages"]
            assert CANARY in generation["gen_ai.output.messages"]
            assert mentions(stack.state_dir / "logs") == []
