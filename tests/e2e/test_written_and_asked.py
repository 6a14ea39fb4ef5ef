"""Whatever is written, the next answer has it: by each RPC, at each consistency, whether the
question was asked before or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

ASKED, NEW = "What do bees make in summer?", "In summer, what is it that bees make?"
CONTENT = "Bees make honey in summer."


def document(identifier: str = "bees", content: str = CONTENT, title: str = "") -> pb.Document:
    metadata = Struct()
    metadata.update({"kind": "insect"})
    return pb.Document(id=identifier, content=content, title=title, metadata=metadata)


OF_INSECTS = retriever_pb.Filter(
    equals=retriever_pb.Filter.Equals(key="kind", value=Value(string_value="insect"))
)
MILL = pb.Document(id="mill", content="The miller grinds rye.")


class Writer:
    """Writes to one collection; each write returns its token."""

    def __init__(self, stub: Any, links: Any, name: str) -> None:
        self.stub = stub
        self.name = name
        self._links = links

    async def put(self, *documents: pb.Document) -> str:
        done = (await ingest(self.stub, self.name, documents))[-1]
        assert done.HasField("ingested"), done
        return done.ingested.consistency_token

    async def delete(self, identifier: str) -> str:
        request = pb.DeleteDocumentRequest(collection=self.name, id=identifier)
        return str((await self.stub.DeleteDocument(request)).consistency_token)

    async def make_anew(self) -> str:
        await self.stub.DeleteCollection(pb.DeleteCollectionRequest(name=self.name))
        request = pb.CreateCollectionRequest(name=self.name)
        return str((await self.stub.CreateCollection(request)).consistency_token)

    async def rename(self, old: str, new: str) -> str:
        request = links_pb.RenameDocumentRequest(collection=self.name, id=old, new_id=new)
        return str((await self._links.RenameDocument(request)).consistency_token)

    async def link(self) -> str:
        request = links_pb.CreateLinkRequest(
            collection=self.name, source_id="bees", target_id="mill"
        )
        return str((await self._links.CreateLink(request)).consistency_token)

    async def unlink(self) -> str:
        request = links_pb.DeleteLinkRequest(
            collection=self.name, source_id="bees", target_id="mill"
        )
        return str((await self._links.DeleteLink(request)).consistency_token)

    async def exchange(self) -> str:
        """Put a collection embedded anew in the place of this one, which then loses its
        document: nothing of that may be seen here."""
        request = pb.ReembedCollectionRequest(collection=self.name, switch=True)
        *_, last = [event async for event in self.stub.ReembedCollection(request)]
        other = Writer(self.stub, self._links, last.switched.beside)
        await other.delete("bees")
        return str(last.switched.consistency_token)


Write = Callable[[Writer], Awaitable[str]]
Seen = Sequence[tuple[str, str, str]]
"""Of each passage the document, its title and the text."""

BEFORE = ("bees", "", CONTENT)


@dataclass(frozen=True)
class Case:
    """`change` follows `prepare`, after which a question finds `before`, and it `now`."""

    prepare: Write
    change: Write
    now: Seen
    before: Seen = (BEFORE,)
    linked: int = 0


async def _standing(it: Writer) -> str:
    return await it.put(document(), MILL)


async def _linked(it: Writer) -> str:
    await _standing(it)
    return await it.link()


async def _named(it: Writer) -> str:
    await it.stub.DeleteCollection(pb.DeleteCollectionRequest(name=it.name))
    await it.stub.CreateCollection(pb.CreateCollectionRequest(name=it.name))
    return await _standing(it)


WAX = "Bees make wax in summer."
LINKED = (BEFORE, ("mill", "", MILL.content))
CASES = {
    "a text": Case(_standing, lambda it: it.put(document(content=WAX)), [("bees", "", WAX)]),
    "a title": Case(
        _standing, lambda it: it.put(document(title="Hives")), [("bees", "Hives", CONTENT)]
    ),
    "metadata": Case(_standing, lambda it: it.put(pb.Document(id="bees", content=CONTENT)), []),
    "a deletion": Case(_standing, lambda it: it.delete("bees"), []),
    "a new document": Case(
        _named,
        lambda it: it.put(document("hive", "In summer bees make it.")),
        [BEFORE, ("hive", "", "In summer bees make it.")],
    ),
    "another id": Case(_named, lambda it: it.rename("bees", "hive"), [("hive", "", CONTENT)]),
    "a collection made anew": Case(_standing, lambda it: it.make_anew(), []),
    "a link": Case(_named, lambda it: it.link(), LINKED, linked=2),
    "a link taken back": Case(_linked, lambda it: it.unlink(), [BEFORE], before=LINKED, linked=2),
    "an exchange": Case(_standing, lambda it: it.exchange(), [BEFORE]),
}
RPCS = ("Ask", "AskStream", "Search")
CONSISTENCIES: dict[str, Callable[[str], retriever_pb.Consistency]] = {
    "minimize_latency": lambda token: retriever_pb.Consistency(minimize_latency=True),
    "at_least_as_fresh": lambda token: retriever_pb.Consistency(at_least_as_fresh=token),
    "fully_consistent": lambda token: retriever_pb.Consistency(fully_consistent=True),
}


async def seen(
    stub: Any, rpc: str, name: str, question: str, linked: int, fresh: retriever_pb.Consistency
) -> Seen:
    """Return what a question finds, in the order of the documents."""
    fields: dict[str, Any] = {
        "collection": name,
        "filter": None if linked else OF_INSECTS,
        "consistency": fresh,
        "linked_passages": linked,
    }
    few = 1 if linked else 3
    try:
        if rpc == "Search":
            response = await stub.Search(pb.SearchRequest(query=question, k=few, **fields))
            hits = [*response.hits, *(it.hit for it in response.linked)]
        else:
            request = pb.AskRequest(question=question, passages=few, abstain_below=0, **fields)
            if rpc == "Ask":
                passages = (await stub.Ask(request)).passages
            else:
                events = [event async for event in stub.AskStream(request)]
                passages = events[0].passages_found.passages
            hits = [it.hit for it in passages]
    except grpc.aio.AioRpcError as error:
        assert reason(error) == "NO_PASSAGES"
        hits = []
    return sorted((it.document_id, it.title, it.text) for it in hits)


@pytest.fixture
async def writer(stack: TestStack) -> AsyncIterator[Writer]:
    async with (
        gateway_stub(stack.gateway) as stub,
        grpc.aio.insecure_channel(stack.gateway) as channel,
        new_collection(stub) as name,
    ):
        yield Writer(stub, LinkServiceStub(channel), name)


@pytest.mark.parametrize("what", CASES)
async def test_what_is_written_is_in_the_next_answer(writer: Writer, what: str) -> None:
    case, stub, name = CASES[what], writer.stub, writer.name
    for rpc, wanted in product(RPCS, CONSISTENCIES):
        token = await case.prepare(writer)
        fresh = CONSISTENCIES[wanted]
        before = await seen(stub, rpc, name, ASKED, case.linked, fresh(token))
        assert before == sorted(case.before), (rpc, wanted)
        token = await case.change(writer)
        for question in (ASKED, NEW):
            now = await seen(stub, rpc, name, question, case.linked, fresh(token))
            assert now == sorted(case.now), (rpc, wanted, question)
    if what == "an exchange":
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=f"{name}-next"))
