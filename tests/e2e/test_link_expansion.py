"""Ask follows links where it is asked to, says so, and keeps no answer that a link outdates."""

from __future__ import annotations

from typing import Any

import grpc
from support.gateway import gateway_stub, ingest, new_collection
from support.replica import second_gateway
from support.stack import TestStack

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as links_pb

NOTES = [
    pb.Document(id="bees.md", content="Bees make honey. They live in the [[grove]]."),
    pb.Document(id="grove.md", content="Oaks and limes stand close together behind the mill."),
    pb.Document(id="mill.md", content="The miller grinds wheat and rye every autumn."),
]
MISS = cache_pb.CACHE_OUTCOME_MISS
HIT = cache_pb.CACHE_OUTCOME_HIT
REVALIDATED = cache_pb.CACHE_OUTCOME_REVALIDATED


def ask(collection: str, **fields: Any) -> pb.AskRequest:
    """Return a question that one passage is found for, and others through links."""
    fields = {"passages": 1, "linked_passages": 2, "abstain_below": 0.0, **fields}
    return pb.AskRequest(collection=collection, question="What do bees make?", **fields)


def documents(response: pb.AskResponse) -> list[str]:
    return [it.hit.document_id for it in response.passages]


async def test_an_answer_rests_on_linked_passages_only_where_it_is_asked_to_and_says_which(
    stack: TestStack,
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, NOTES) as name:
        plain = await stub.Ask(ask(name, linked_passages=0))
        linked = await stub.Ask(ask(name))
        again = await stub.Ask(ask(name))
        found = await stub.Search(
            pb.SearchRequest(collection=name, query="What do bees make?", k=1, linked_passages=2)
        )
    assert documents(plain) == ["bees.md"]
    assert "RelatedPassages" not in [it.method for it in plain.trail.hops]
    assert documents(linked) == ["bees.md", "grove.md"]
    assert linked.cache.use.outcome == MISS
    assert "RelatedPassages" in [it.method for it in linked.trail.hops]
    assert [it.HasField("link") for it in linked.passages] == [False, True]
    link = linked.passages[1].link
    assert (link.source_id, link.target_id) == ("bees.md", "grove.md")
    assert link.occurrences[0].sentence == "They live in the [[grove]]."
    assert again.cache.use.outcome == HIT and again.passages == linked.passages
    assert [it.document_id for it in found.hits] == ["bees.md"]
    assert [it.hit.document_id for it in found.linked] == ["grove.md"]


async def test_a_changed_link_and_a_changed_linked_document_outdate_an_answer(
    stack: TestStack,
) -> None:
    async with (
        gateway_stub(stack.gateway) as stub,
        grpc.aio.insecure_channel(stack.gateway) as channel,
        new_collection(stub, NOTES) as name,
    ):
        links = LinkServiceStub(channel)
        for request in (ask(name), ask(name, linked_passages=0)):
            assert (await stub.Ask(request)).cache.use.outcome == MISS
        await links.CreateLink(
            links_pb.CreateLinkRequest(collection=name, source_id="mill.md", target_id="bees.md")
        )
        linked = await stub.Ask(ask(name))
        assert sorted(documents(linked)) == ["bees.md", "grove.md", "mill.md"]
        assert linked.cache.use.outcome == MISS
        # Who follows no links is not concerned.
        plain = await stub.Ask(ask(name, linked_passages=0))
        assert plain.cache.use.outcome == REVALIDATED

        text = "Nothing is left of the oaks but their stumps."
        await ingest(stub, name, [pb.Document(id="grove.md", content=text)])
        changed = await stub.Ask(ask(name))
        assert text in [it.hit.text for it in changed.passages]
        assert changed.cache.use.outcome == MISS

        await links.DeleteLink(
            links_pb.DeleteLinkRequest(collection=name, source_id="mill.md", target_id="bees.md")
        )
        assert documents(await stub.Ask(ask(name))) == ["bees.md", "grove.md"]
        assert (await stub.Ask(ask(name))).cache.use.outcome == HIT


async def test_without_the_linked_passages_the_answer_is_made_says_so_and_is_not_kept(
    stack: TestStack,
) -> None:
    fault = (("quintet-fault", "retriever/RelatedPassages;abort=UNAVAILABLE"),)
    async with (
        second_gateway(stack, FAULT_INJECTION="true") as address,
        gateway_stub(address) as stub,
        new_collection(stub, NOTES) as name,
    ):
        answer = await stub.Ask(ask(name), metadata=fault)
        whole = await stub.Ask(ask(name))
    assert documents(answer) == ["bees.md"] and answer.answer
    assert [(it.hop, it.substitute) for it in answer.degradations] == [
        ("link expansion", pb.SUBSTITUTE_STEP_SKIPPED)
    ]
    assert documents(whole) == ["bees.md", "grove.md"] and not whole.degradations
    assert whole.cache.use.outcome == MISS
