"""One answer is one trace: its exact tree, across five processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from support.gateway import gateway_stub, ingest, new_collection
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_local.traces import Span, TraceNotFoundError, load_trace

DOCUMENT = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")

EMBED = """
      embedder quintet.embedder.v1.EmbedderService/Embed
        embedder embeddings all-MiniLM-L6-v2"""
SEARCH = """
      retriever quintet.retriever.v1.RetrieverService/Search
        retriever SELECT chunk"""
COUNT = """
      tokenizer quintet.tokenizer.v1.TokenizerService/Count"""
GENERATE = """
      generator quintet.generator.v1.GeneratorService/GenerateStream
        generator text_completion extractive"""


def call(service: str, method: str) -> str:
    return f"gateway quintet.{service}.v1.{service.capitalize()}Service/{method}"


ANSWER = f"""
    {call("embedder", "Embed")}{EMBED}
    {call("retriever", "Search")}{SEARCH}
    {call("tokenizer", "Count")}{COUNT}
    {call("generator", "GenerateStream")}{GENERATE}"""

CHANGED = f"""
    {call("retriever", "Search")}
      retriever quintet.retriever.v1.RetrieverService/Search
        retriever SELECT change
        retriever SELECT chunk
    {call("tokenizer", "Count")}{COUNT}
    {call("generator", "GenerateStream")}{GENERATE}"""


def tree(spans: Sequence[Span]) -> str:
    """Draw a trace: service and name of each span, children under their parents."""
    children: dict[str, list[Span]] = {}
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.start_ns):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def draw(parent: str, indent: str) -> list[str]:
        return [
            line
            for span in children.get(parent, [])
            for line in (f"{indent}{span.service} {span.name}", *draw(span.span_id, indent + "  "))
        ]

    return "\n".join(draw("", ""))


async def trace_of(stack: TestStack, trace_id: str, spans: int) -> str:
    """Return the tree of a trace once `spans` spans of it have come in."""
    found: Sequence[Span] = ()
    async with asyncio.timeout(15):
        while len(found) < spans:
            await asyncio.sleep(0.1)
            with suppress(TraceNotFoundError):
                found = load_trace(stack.state_dir, trace_id)
    # Any span too many would come with the next export of its process.
    await asyncio.sleep(0.8)
    return tree(load_trace(stack.state_dir, trace_id))


def expected(method: str, body: str) -> str:
    lines = [f"gateway quintet.gateway.v1.GatewayService/{method}"]
    lines += [line[2:] for line in body.splitlines() if line.strip()]
    return "\n".join(lines)


async def test_an_answer_is_one_tree_of_hops_and_their_work(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [DOCUMENT]) as name:

        def asking(question: str) -> pb.AskRequest:
            return pb.AskRequest(collection=name, question=question)

        # The first question also asks for the collection's and generator's models.
        await stub.Ask(asking("Is honey sweet?"))
        whole = await stub.Ask(asking("Which thing do bees make?"))
        events = [event async for event in stub.AskStream(asking("Which insect makes honey?"))]
        again = await stub.Ask(asking("Which thing do bees make?"))
        new = pb.Document(id="wax", content="Bees make wax.")
        await ingest(stub, name, [new])
        changed = await stub.Ask(asking("Which thing do bees make?"))
    streamed = events[-1].completed.trail.trace_id
    assert await trace_of(stack, whole.trail.trace_id, 12) == expected("Ask", ANSWER)
    assert await trace_of(stack, streamed, 12) == expected("AskStream", ANSWER)
    assert await trace_of(stack, again.trail.trace_id, 1) == expected("Ask", "")
    assert await trace_of(stack, changed.trail.trace_id, 10) == expected("Ask", CHANGED)


async def test_a_callers_trace_goes_on_in_ours(stack: TestStack) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [DOCUMENT]) as name:
        request = pb.SearchRequest(collection=name, query="honey")
        found = await stub.Search(request, metadata=metadata)
    assert found.trail.trace_id == trace_id
    tree_of_search = await trace_of(stack, trace_id, 5)
    assert tree_of_search.startswith("gateway quintet.gateway.v1.GatewayService/Search")


async def test_an_ingested_document_is_one_branch_of_its_stream(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        requests = [pb.IngestRequest(collection=name, document=DOCUMENT)]
        stream = stub.Ingest(iter(requests))
        assert [response.ingested.version async for response in stream] == [1]
        trace_id = dict(await stream.trailing_metadata())["quintet-trace-id"]
        await ingest(stub, name, [])
    lines = (await trace_of(stack, trace_id, 12)).splitlines()
    assert lines[0] == "gateway quintet.gateway.v1.GatewayService/Ingest"
    assert lines[1] == "  gateway ingest document"
    hops = [line.split("/")[-1] for line in lines if line.startswith("    gateway quintet.")]
    assert hops[-4:] == ["GetDocument", "Chunk", "Embed", "UpsertDocuments"]
