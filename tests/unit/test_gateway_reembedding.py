"""What is brought in beside a collection, round by round, and how often."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.overlap import Overlap
from quintet_gateway.reembedding import Reembedder
from quintet_servicekit.errors import Reason, ServiceError

RPCS = SimpleNamespace(
    **dict.fromkeys(
        "CreateCollection GetCollection ListDocuments GetDocument DeleteDocument"
        " SwitchCollections".split()
    )
)
HERE, BESIDE = "notes", "notes-next"


class Shelves:
    """Two collections in memory, as the retriever tells of them. Each document is its content,
    its version and when it was made."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, tuple[str, int, int]]] = {HERE: {}, BESIDE: {}}
        self.epoch = 1
        self.switched = False
        self.ingested: list[str] = []

    def write(self, id_: str, content: str) -> None:
        self.epoch += 1
        _, version, made = self.of[HERE].get(id_, ("", 0, self.epoch))
        self.of[HERE][id_] = (content, version + 1, made)

    def delete(self, id_: str) -> None:
        self.epoch += 1
        del self.of[HERE][id_]

    def contents(self, name: str) -> dict[str, str]:
        return {id_: content for id_, (content, _, _) in self.of[name].items()}

    # What the reembedder is given.

    async def embedder(self, chain: Any, name: str) -> Any:
        return SimpleNamespace(name=name, revision="r", dimension=2)

    def forget(self, name: str) -> None:
        pass

    def mark(self) -> None:
        return None

    def note(self, name: str, token: str, mark: None) -> None:
        pass

    def peer(self, name: str) -> None:
        return None

    async def between(self, one: str, other: str, new_chain: Callable[[], Any]) -> pb.Compared:
        return pb.Compared(overlap=1, searches=len(self.of[one]))

    async def ingest(self, chain: Any, request: pb.IngestRequest) -> None:
        document = request.document
        self.ingested.append(document.id)
        self.of[request.collection][document.id] = (document.content, 1, 0)

    async def unary(
        self, peer: None, method: str, call: None, request: Any, expected: Reason | None = None
    ) -> Any:
        return getattr(self, method)(request)

    def CreateCollection(self, request: Any) -> None:
        assert request.name == BESIDE

    def GetCollection(self, request: Any) -> Any:
        collection = retriever_pb.Collection(document_count=len(self.of[request.name]))
        return retriever_pb.GetCollectionResponse(
            collection=collection, consistency_token=str(self.epoch)
        )

    def ListDocuments(self, request: Any) -> Any:
        documents = [self._document(it, row) for it, row in self.of[request.collection].items()]
        return retriever_pb.ListDocumentsResponse(documents=documents)

    def GetDocument(self, request: Any) -> Any:
        row = self.of[request.collection].get(request.id)
        if row is None:
            raise ServiceError(Reason.DOCUMENT_NOT_FOUND, "gone")
        return retriever_pb.GetDocumentResponse(document=self._document(request.id, row))

    def DeleteDocument(self, request: Any) -> None:
        del self.of[request.collection][request.id]

    def SwitchCollections(self, request: Any) -> Any:
        if request.consistency_token != str(self.epoch):
            raise ServiceError(Reason.CONFLICT, "written meanwhile")
        self.switched = True
        return retriever_pb.SwitchCollectionsResponse(consistency_token="t")

    @staticmethod
    def _document(id_: str, row: tuple[str, int, int]) -> retriever_pb.Document:
        content, version, made = row
        document = retriever_pb.Document(
            id=id_, content=content, version=version, content_hash="markdown.a.b"
        )
        document.create_time.FromSeconds(made)
        return document


async def switched(shelves: Shelves, meanwhile: Callable[[], None]) -> None:
    """Run a call to its end; `meanwhile` happens once, when the first round is over."""
    services = SimpleNamespace(peer=shelves.peer, retriever=RPCS)
    it: Any = shelves
    reembedder = Reembedder(cast(Any, services), it, it, it, it, in_flight=2, max_documents=100)
    request = pb.ReembedCollectionRequest(collection=HERE, switch=True)
    async for event in reembedder.events(request, lambda: cast(Chain, shelves)):
        if event.HasField("compared"):
            meanwhile()


@pytest.fixture
def shelves() -> Shelves:
    shelves = Shelves()
    for id_ in "abc":
        shelves.write(id_, f"{id_} as it was")
    return shelves


async def test_what_is_written_and_deleted_meanwhile_is_on_both_sides(shelves: Shelves) -> None:
    def meanwhile() -> None:
        shelves.write("a", "a as it is")
        shelves.write("d", "new")
        shelves.delete("b")

    await switched(shelves, meanwhile)
    assert shelves.switched
    assert shelves.contents(BESIDE) == shelves.contents(HERE)
    assert sorted(shelves.ingested) == ["a", "a", "b", "c", "d"]


async def test_a_document_that_is_deleted_and_made_anew_is_brought_in_anew(
    shelves: Shelves,
) -> None:
    def meanwhile() -> None:
        # Its version is 1, as that of the one before was.
        shelves.delete("b")
        shelves.write("b", "another b")

    await switched(shelves, meanwhile)
    assert shelves.contents(BESIDE) == shelves.contents(HERE)
    assert shelves.contents(HERE)["b"] == "another b"


async def test_a_document_that_goes_while_the_two_are_compared_is_left_out(
    shelves: Shelves,
) -> None:
    searched = []

    class Searcher:
        async def find(self, chain: Any, query: Any) -> Any:
            searched.append(query.text)
            return retriever_pb.SearchResponse(hits=[retriever_pb.Hit(document_id="a")])

    class Deleting(Shelves):
        def ListDocuments(self, request: Any) -> Any:
            listed = super().ListDocuments(request)
            self.delete("b")
            return listed

    deleting = Deleting()
    deleting.of = shelves.of
    services: Any = SimpleNamespace(peer=shelves.peer, retriever=RPCS)
    overlap = Overlap(services, cast(Any, Searcher()))
    compared = await overlap.between(HERE, BESIDE, lambda: cast(Chain, deleting))
    assert (compared.searches, compared.overlap) == (2, 1)
    assert sorted(searched) == ["a as it was"] * 2 + ["c as it was"] * 2


async def test_nothing_is_brought_in_twice_where_nothing_was_written(shelves: Shelves) -> None:
    await switched(shelves, lambda: None)
    assert sorted(shelves.ingested) == ["a", "b", "c"]
