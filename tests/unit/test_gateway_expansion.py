"""Following links: what the retriever is asked, and when it is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import Degradations
from quintet_gateway.expansion import LinkExpander, mark
from quintet_gateway.searching import QueryVector
from quintet_servicekit.errors import Reason, ServiceError

HITS = [retriever_pb.Hit(document_id="a", start=3, end=9), retriever_pb.Hit(document_id="b", end=4)]
FOUND = links_pb.RelatedPassage(
    hit=retriever_pb.Hit(document_id="c", chunk_index=2),
    link=links_pb.Link(source_id="a", target_id="c"),
)
SERVICES = cast(
    Services,
    SimpleNamespace(links=SimpleNamespace(RelatedPassages=None), link_peer=lambda: None),
)


class Answering:
    """A chain whose only call is answered; `short` of time for what comes after a search;
    `switched`: the collection has another embedding model than when it was searched."""

    def __init__(
        self, *, short: bool = False, forbidden: bool = False, switched: bool = False
    ) -> None:
        self.degradations = Degradations(forbidden=forbidden)
        self.asked: list[links_pb.RelatedPassagesRequest] = []
        self._switched = switched
        self._short = short

    def is_short_after(self, method: str) -> bool:
        return self._short and method == "Search"

    async def unary(self, peer: Any, method: str, call: Any, request: Any, **_: Any) -> Any:
        self.asked.append(request)
        if self._switched and request.embedding_revision:
            raise ServiceError(Reason.MODEL_MISMATCH, "another model")
        return links_pb.RelatedPassagesResponse(passages=[FOUND])


async def linked(chain: Answering, limit: int = 2, hits: Any = HITS) -> Any:
    query = links_pb.RelatedPassagesRequest(collection="notes", text="Who?", limit=limit)
    vector = QueryVector(b"\0" * 8, "revision", 3)
    return await LinkExpander(SERVICES).linked(cast(Chain, chain), query, vector, hits)


async def test_the_retriever_is_asked_once_with_all_that_was_found() -> None:
    chain = Answering()
    assert list(await linked(chain)) == [FOUND]
    (request,) = chain.asked
    assert [(it.document_id, it.start, it.end) for it in request.seeds] == [
        ("a", 3, 9),
        ("b", 0, 4),
    ]
    assert (request.vector, request.embedding_revision) == (b"\0" * 8, "revision")


async def test_nobody_is_asked_where_no_links_are_wanted_or_nothing_was_found() -> None:
    chain = Answering()
    assert not await linked(chain, limit=0)
    assert not await linked(chain, hits=[])
    assert not chain.asked and not chain.degradations.messages


async def test_the_step_is_left_out_and_told_where_time_is_short() -> None:
    chain = Answering(short=True)
    assert not await linked(chain)
    assert not chain.asked
    assert [it.hop for it in chain.degradations.messages] == ["link expansion"]
    with pytest.raises(ServiceError):
        await linked(Answering(short=True, forbidden=True))


async def test_a_collection_that_was_switched_since_it_was_searched_is_asked_by_words() -> None:
    chain = Answering(switched=True, forbidden=True)
    assert list(await linked(chain)) == [FOUND]
    assert (chain.asked[-1].vector, chain.asked[-1].text) == (b"", "Who?")
    assert not chain.degradations.messages


def test_only_what_was_found_through_a_link_is_marked() -> None:
    passages = [pb.Passage(number=1, hit=HITS[0]), pb.Passage(number=2, hit=FOUND.hit)]
    mark(passages, [FOUND])
    assert not passages[0].HasField("link")
    assert passages[1].link == FOUND.link
