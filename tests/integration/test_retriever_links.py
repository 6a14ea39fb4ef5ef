"""Links over gRPC: resolved both ways, dangling and arriving, stated, suggested, related."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest
import pytest_asyncio
from support.grpc_service import serving
from support.retriever import (
    create,
    document,
    failure,
    module_fixtures,
    new_name,
    packed,
    settings_for,
    upsert,
)

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever
from quintet.retriever.v1.link_service_pb2_grpc import LinkServiceStub
from quintet_retriever.app import open_application
from quintet_retriever.links.models import Direction
from quintet_retriever.links.reading import neighbours, page_from, page_to
from quintet_retriever.tables import Tables
from quintet_servicekit.consistency import decode_token
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub

    from quintet.retriever.v1.link_service_pb2_grpc import LinkServiceAsyncStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

url, stub, name = module_fixtures()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def links(url: str, stub: Stub) -> AsyncIterator[LinkServiceAsyncStub]:
    """Links of a second replica on the same database."""
    settings = settings_for(url)
    async with open_application(settings) as application, serving(application, settings) as channel:
        yield LinkServiceStub(channel)


async def edges(
    links: LinkServiceAsyncStub, collection: str, document_id: str = "", **query: object
) -> list[tuple[str, str]]:
    request = pb.ListLinksRequest(collection=collection, document_id=document_id, **query)  # type: ignore[arg-type]
    return [(it.source_id, it.target_id) for it in (await links.ListLinks(request)).links]


async def test_links_are_listed_from_and_to_a_document(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("a.md", ["See [[B]] and [c](sub/c.md#part).", "Again [[b|label]]."]),
        document("b.md", ["Back to [[a]]."]),
        document("sub/c.md", ["Up to [b](../b.md)."]),
    )  # fmt: skip
    assert await edges(links, name, "a.md") == [
        ("a.md", "b.md"), ("a.md", "sub/c.md"), ("b.md", "a.md")
    ]  # fmt: skip
    assert await edges(links, name, "b.md", direction=pb.LINK_DIRECTION_TO) == [
        ("a.md", "b.md"), ("sub/c.md", "b.md")
    ]  # fmt: skip
    assert len(await edges(links, name)) == 4
    request = pb.ListLinksRequest(collection=name, document_id="a.md")
    first = (await links.ListLinks(request)).links[0]
    assert (first.type, first.status) == (pb.LINK_TYPE_REFERENCES, pb.LINK_STATUS_STATED)
    assert [it.sentence for it in first.occurrences] == [
        "See [[B]] and [c](sub/c.md#part).", "Again [[b|label]]."
    ]  # fmt: skip
    assert (first.occurrence_count, first.occurrences[1].label) == (2, "label")
    assert not await edges(links, name, "a.md", types=[pb.LINK_TYPE_SUPPORTS])


async def test_pages_hold_every_link_once(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("hub.md", [" ".join(f"[[n{i:02}]]" for i in range(12))]),
        *[document(f"n{i:02}.md", ["[[hub]]"]) for i in range(10)],
    )  # fmt: skip
    whole = await edges(links, name, "hub.md")
    assert whole[:2] == [("hub.md", ""), ("hub.md", "")] and len(whole) == 22
    for document_id in ("hub.md", ""):
        request = pb.ListLinksRequest(collection=name, document_id=document_id, page_size=3)
        found = []
        while True:
            page = await links.ListLinks(request)
            found += [(it.source_id, it.target_id) for it in page.links]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert found == await edges(links, name, document_id)
    other = pb.ListLinksRequest(
        collection=name, page_token=request.page_token, document_id="hub.md"
    )
    assert (await failure(links.ListLinks(other))).reason is Reason.INVALID_PAGE_TOKEN


async def dangling(links: LinkServiceAsyncStub, collection: str) -> list[tuple[str, str]]:
    request = pb.ListDanglingLinksRequest(collection=collection)
    found = (await links.ListDanglingLinks(request)).links
    assert not any(it.target_id for it in found)
    return [(it.source_id, it.target) for it in found]


async def test_a_dangling_link_resolves_when_its_target_arrives_and_dangles_when_it_goes(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(stub, name, document("a.md", ["[[Later]] and [[never]]"]))
    assert await dangling(links, name) == [("a.md", "Later"), ("a.md", "never")]
    await upsert(stub, name, document("x/later.md"))
    assert await dangling(links, name) == [("a.md", "never")]
    assert ("a.md", "x/later.md") in await edges(links, name, "x/later.md")
    await stub.DeleteDocument(retriever.DeleteDocumentRequest(collection=name, id="x/later.md"))
    assert await dangling(links, name) == [("a.md", "Later"), ("a.md", "never")]


async def test_a_text_that_changes_has_its_new_links_alone(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(stub, name, document("b.md"), document("c.md"), document("a.md", ["[[b]]"]))
    await links.CreateLink(
        pb.CreateLinkRequest(collection=name, source_id="a.md", target_id="b.md")
    )
    await upsert(stub, name, document("a.md", ["[[c]]"]))
    request = pb.ListLinksRequest(collection=name, document_id="a.md")
    found = (await links.ListLinks(request)).links
    assert [(it.target_id, it.status) for it in found] == [
        ("b.md", pb.LINK_STATUS_CREATED), ("c.md", pb.LINK_STATUS_STATED)
    ]  # fmt: skip


async def test_of_documents_that_share_a_name_the_best_named_one_has_it(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("z.md", ["[[todo]] [[work/todo]] [[projects]] [[Title of todo.md]] [[z]]"]),
        document("house/todo.md"), document("work/todo.md"), document("projects/README.md"),
    )  # fmt: skip
    assert await edges(links, name, "z.md") == [
        ("z.md", ""), ("z.md", "house/todo.md"), ("z.md", "projects/README.md"),
        ("z.md", "work/todo.md"),
    ]  # fmt: skip
    await upsert(stub, name, document("todo.md"))
    assert ("z.md", "todo.md") in await edges(links, name, "z.md")
    assert not await edges(links, name, "house/todo.md")


async def test_collections_never_mix(stub: Stub, links: LinkServiceAsyncStub, name: str) -> None:
    other = (await create(stub, new_name())).name
    await upsert(stub, name, document("a.md", ["[[b]]"]))
    await upsert(stub, other, document("b.md", ["[[a]]"]))
    assert await dangling(links, name) == [("a.md", "b")]
    assert await dangling(links, other) == [("b.md", "a")]
    request = pb.CreateLinkRequest(collection=name, source_id="a.md", target_id="b.md")
    assert (await failure(links.CreateLink(request))).reason is Reason.DOCUMENT_NOT_FOUND


async def test_callers_make_change_and_delete_links_of_a_type(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(stub, name, document("a"), document("b"))
    request = pb.CreateLinkRequest(
        collection=name, source_id="a", target_id="b", type=pb.LINK_TYPE_SUPPORTS, note="why"
    )
    first = await links.CreateLink(request)
    request.note = "because"
    second = await links.CreateLink(request)
    assert (first.created, second.created) == (True, False)
    epochs = [decode_token(name, it.consistency_token) for it in (first, second)]
    assert epochs[0] < epochs[1]
    (link,) = (await links.ListLinks(pb.ListLinksRequest(collection=name, document_id="b"))).links
    assert (link.type, link.note, link.target) == (pb.LINK_TYPE_SUPPORTS, "because", "b")
    delete = pb.DeleteLinkRequest(
        collection=name, source_id="a", target_id="b", type=pb.LINK_TYPE_SUPPORTS
    )
    assert decode_token(name, (await links.DeleteLink(delete)).consistency_token) > epochs[1]
    assert (await failure(links.DeleteLink(delete))).reason is Reason.LINK_NOT_FOUND
    assert not await edges(links, name)


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateLinkRequest(source_id="a", target_id="a"),
        pb.CreateLinkRequest(source_id="", target_id="a"),
        pb.CreateLinkRequest(source_id="a", target_id="b\n"),
        pb.CreateLinkRequest(source_id="a", target_id="b", type=99),  # type: ignore[arg-type]
        pb.RelatedRequest(seeds=[pb.RelatedRequest.Seed(document_id="a")], hops=3),
        pb.RelatedRequest(),
        pb.RelatedPassagesRequest(seeds=[pb.RelatedRequest.Seed(document_id="a")]),
        pb.RelatedRequest(seeds=[pb.RelatedRequest.Seed(document_id="a", start=3, end=2)]),
        pb.ListLinksRequest(types=[0]),  # type: ignore[list-item]
        pb.SuggestLinksRequest(document_id="a", min_confidence=1.5),
        pb.RenameDocumentRequest(id="a", new_id="a"),
    ],
)
async def test_what_breaks_bounds_is_refused(
    links: LinkServiceAsyncStub, name: str, request_: pb.CreateLinkRequest
) -> None:
    request_.collection = name
    method = type(request_).__name__.removesuffix("Request")
    assert (await failure(getattr(links, method)(request_))).reason is Reason.INVALID_FIELD


async def test_a_renamed_document_is_found_by_its_old_names_and_its_new_ones(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(stub, name, document("a.md", ["[[old]] [[new]]"]), document("old.md"))
    await links.CreateLink(
        pb.CreateLinkRequest(collection=name, source_id="a.md", target_id="old.md")
    )
    there_and_back = [("old.md", "x/new.md"), ("x/new.md", "old.md"), ("old.md", "x/new.md")]
    for old, new in there_and_back:
        request = pb.RenameDocumentRequest(collection=name, id=old, new_id=new)
        assert (await links.RenameDocument(request)).consistency_token
    assert await dangling(links, name) == []
    assert set(await edges(links, name, "x/new.md")) == {("a.md", "x/new.md")}
    assert (await failure(links.RenameDocument(request))).reason is Reason.DOCUMENT_NOT_FOUND
    taken = pb.RenameDocumentRequest(collection=name, id="a.md", new_id="x/new.md")
    assert (await failure(links.RenameDocument(taken))).reason is Reason.DOCUMENT_EXISTS
    # Who takes an old name has it.
    await upsert(stub, name, document("old.md"))
    assert ("a.md", "old.md") in await edges(links, name, "a.md")


def _at(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


async def test_suggestions_are_near_documents_that_are_not_linked_and_are_never_made_alone(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("a.md", ["text [[linked]]"], [_at(0)]),
        document("linked.md", ["text"], [_at(1)]),
        document("near.md", ["far", "near"], [_at(170), _at(10)]),
        document("next.md", ["next"], [_at(20)]),
        document("far.md", ["far"], [_at(90)]),
    )  # fmt: skip
    request = pb.SuggestLinksRequest(collection=name, document_id="a.md")
    found = (await links.SuggestLinks(request)).suggestions
    assert [it.document_id for it in found] == ["near.md", "next.md"]
    assert found[0].confidence == pytest.approx(np.cos(np.radians(10)), abs=1e-4)
    assert (found[0].target_chunk, found[0].target_text) == (1, "near")
    assert found[0].status == pb.LINK_STATUS_SUGGESTED
    assert await edges(links, name) == [("a.md", "linked.md")]

    pair = {"collection": name, "source_id": "a.md"}
    accepted = await links.AcceptSuggestion(
        pb.AcceptSuggestionRequest(**pair, target_id="near.md", type=pb.LINK_TYPE_EXPANDS_ON)
    )
    assert accepted.created and accepted.confidence == pytest.approx(found[0].confidence, abs=1e-4)
    dismissal = pb.DismissSuggestionRequest(**pair, target_id="next.md")
    for _ in range(2):
        assert (await links.DismissSuggestion(dismissal)).consistency_token
    assert not (await links.SuggestLinks(request)).suggestions
    listed = (await links.ListLinks(pb.ListLinksRequest(collection=name))).links
    assert [(it.target_id, it.status, it.HasField("confidence")) for it in listed] == [
        ("linked.md", pb.LINK_STATUS_STATED, False), ("near.md", pb.LINK_STATUS_ACCEPTED, True)
    ]  # fmt: skip
    back = pb.SuggestLinksRequest(collection=name, document_id="next.md", min_confidence=0.9)
    assert "a.md" not in [it.document_id for it in (await links.SuggestLinks(back)).suggestions]


async def related(
    links: LinkServiceAsyncStub, collection: str, *seeds: str, **query: object
) -> dict[str, list[str]]:
    request = pb.RelatedRequest(collection=collection, **query)  # type: ignore[arg-type]
    for seed in seeds:
        request.seeds.add(document_id=seed)
    response = await links.Related(request)
    scores = [it.score for it in response.documents]
    assert scores == sorted(scores, reverse=True)
    return {
        it.document_id: [f"{link.source_id}>{link.target_id}" for link in it.path]
        for it in response.documents
    }


async def test_related_walks_two_steps_both_ways_and_tells_the_path(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("a", ["[[b]] first. [[Gone]]"]), document("b", ["[[c]] second."]),
        document("c", ["[[d]] third."]), document("d"), document("up", ["[[a]] is here."]),
    )  # fmt: skip
    assert await related(links, name, "a", "nowhere") == {
        "b": ["a>b"], "up": ["up>a"], "c": ["a>b", "b>c"]
    }  # fmt: skip
    assert await related(links, name, "a", hops=1, direction=pb.LINK_DIRECTION_TO) == {
        "up": ["up>a"]
    }
    assert await related(links, name, "a", types=[pb.LINK_TYPE_FOLLOWS]) == {}
    request = pb.RelatedRequest(collection=name, seeds=[pb.RelatedRequest.Seed(document_id="a")])
    path = {it.document_id: it.path for it in (await links.Related(request)).documents}["c"]
    assert [it.occurrences[0].sentence for it in path] == ["[[b]] first.", "[[c]] second."]


async def test_related_is_bounded_and_says_so(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name,
        document("hub", [" ".join(f"[[n{i}]]" for i in range(30)) + " [[n7]]"]),
        *[document(f"n{i}") for i in range(30)],
    )  # fmt: skip
    request = pb.RelatedRequest(
        collection=name, seeds=[pb.RelatedRequest.Seed(document_id="hub")], fan_out=5
    )
    response = await links.Related(request)
    assert response.truncated and len(response.documents) == 5
    assert response.documents[0].document_id == "n7"


async def test_links_of_the_stretch_that_was_asked_for_count_more(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await upsert(
        stub, name, document("a", ["[[b]] early", "[[c]] late"]), document("b"), document("c")
    )
    for start, end, first in ((0, 11, "b"), (12, 22, "c")):
        seed = pb.RelatedRequest.Seed(document_id="a", start=start, end=end)
        response = await links.Related(pb.RelatedRequest(collection=name, seeds=[seed]))
        assert response.documents[0].document_id == first


async def test_writers_of_sources_and_of_their_target_at_once_leave_nothing_dangling(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    await asyncio.gather(
        *[upsert(stub, name, document(f"s{i}", ["[[target]]"])) for i in range(8)],
        *[upsert(stub, name, document("x/target.md", [f"text {i}"])) for i in range(4)],
        upsert(stub, name, document("y/target.md")),
    )
    assert await dangling(links, name) == []
    assert len(await edges(links, name, "x/target.md")) == 8
    assert not await edges(links, name, "y/target.md")


async def test_deleting_while_linking_leaves_the_link_dangling_or_resolved_never_lost(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    for round_ in range(5):
        await upsert(stub, name, document("t"), document("u"))
        source = f"s{round_}"
        create_link = pb.CreateLinkRequest(collection=name, source_id="u", target_id="t")
        outcomes = await asyncio.gather(
            upsert(stub, name, document(source, ["[[t]]"])),
            stub.DeleteDocument(retriever.DeleteDocumentRequest(collection=name, id="t")),
            links.CreateLink(create_link),
            return_exceptions=True,
        )
        assert not isinstance(outcomes[0], BaseException)
        assert (source, "t") in await dangling(links, name)
        await upsert(stub, name, document("t"))
        assert (source, "t") in await edges(links, name, "t")


async def test_deleting_a_collection_drops_its_links(stub: Stub, url: str) -> None:
    made = (await create(stub, new_name())).name
    await upsert(stub, made, document("a", ["[[b]]"]))
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT id FROM retriever.collection WHERE name = %s", [made]
        ).fetchone()
        assert found is not None
        await stub.DeleteCollection(retriever.DeleteCollectionRequest(name=made))
        for kind in ("link", "name", "document", "chunk"):
            gone = connection.execute("SELECT to_regclass(%s)", [f"retriever.{kind}_{found[0]}"])
            assert gone.fetchone() == (None,)


async def test_plans_use_indexes_both_ways(stub: Stub, url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        ((identifier,),) = connection.execute(
            "SELECT id FROM retriever.collection WHERE name = %s", [name]
        )
        connection.execute(
            f"INSERT INTO retriever.document_{identifier}"
            " (id, title, content, content_length, content_hash, metadata)"
            " SELECT 'd' || i, '', '', 0, '', '{}' FROM generate_series(1, 5000) AS i"
        )
        connection.execute(
            f"INSERT INTO retriever.name_{identifier} SELECT 'name:' || id, 1, id, key"
            f" FROM retriever.document_{identifier}"
        )
        connection.execute(
            f"INSERT INTO retriever.link_{identifier} (source_key, name, type, status, target)"
            f" SELECT key, 'name:d' || (key * 7 + i) % 5000, 2, 1, 't'"
            f" FROM retriever.document_{identifier}, generate_series(1, 8) AS i"
        )
        connection.execute(f"ANALYZE retriever.document_{identifier}")
        connection.execute(f"ANALYZE retriever.name_{identifier}")
        connection.execute(f"ANALYZE retriever.link_{identifier}")
        tables = Tables.of(identifier)
        for statement in (
            page_from(tables, "d7", (), ("", "", "", 0, 0), 100),
            page_from(tables, None, (), ("", "", "", 0, 0), 100),
            page_to(tables, 7, (), ("", 0, 0), 100),
            neighbours(tables, [7, 8], Direction.BOTH, (), 25),
        ):
            explained = psycopg.sql.SQL("EXPLAIN ") + statement.sql
            with psycopg.ClientCursor(connection) as cursor:
                rows = cursor.execute(explained, statement.parameters).fetchall()
            plan = "\n".join(row[0] for row in rows)
            assert "Seq Scan on link" not in plan and "Seq Scan on name" not in plan, plan
            assert "Seq Scan on document" not in plan, plan


async def test_what_callers_said_of_links_is_carried_to_a_collection_that_takes_the_place(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    beside = (await create(stub, new_name(), dimension=3)).name
    for each, vector in ((name, [[1, 0]]), (beside, [[1, 0, 0]])):
        for identifier in ("a", "b", "c"):
            await upsert(stub, each, document(identifier, ["text"], vector))
    for collection, source, target in ((name, "a", "b"), (name, "b", "c"), (beside, "c", "a")):
        await links.CreateLink(
            pb.CreateLinkRequest(collection=collection, source_id=source, target_id=target)
        )
    read = await stub.GetCollection(retriever.GetCollectionRequest(name=name))
    await stub.SwitchCollections(
        retriever.SwitchCollectionsRequest(
            name=name, other=beside, consistency_token=read.consistency_token
        )
    )
    assert await edges(links, name) == [("a", "b"), ("b", "c")]
    assert await edges(links, beside) == [("a", "b"), ("b", "c")]


async def related_passages(
    links: LinkServiceAsyncStub, collection: str, *seeds: str, **query: object
) -> list[pb.RelatedPassage]:
    request = pb.RelatedPassagesRequest(collection=collection, **query)  # type: ignore[arg-type]
    for seed in seeds:
        request.seeds.add(document_id=seed, start=0, end=6)
    return list((await links.RelatedPassages(request)).passages)


async def test_passages_one_link_away_are_the_best_of_their_documents_for_the_question(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    near, far = [1.0, 0.2], [0.1, 1.0]
    await upsert(
        stub, name,
        document("a", ["[[b]].", "About [[b]] and [[c]]. [[Gone]]"]),
        document("b", ["the cold", "the warm", "[[d]]"], [far, near, far], kind="note"),
        document("c", ["the warm [[d]]"], [far]), document("d"),
        document("up", ["warm: see [[a]]"], [[1.0, 0.5]]), document("alone"),
    )  # fmt: skip
    found = await related_passages(links, name, "a", "nowhere", vector=packed([1, 0]))
    assert [(it.hit.document_id, it.hit.chunk_index) for it in found] == [
        ("b", 1), ("up", 0), ("c", 0)
    ]  # fmt: skip
    best = found[0]
    assert best.hit.score == best.hit.scores.dense == pytest.approx(1 / 1.04**0.5)
    assert best.hit.text == "the warm" and best.hit.metadata["kind"] == "note"
    assert [it.sentence for it in best.link.occurrences] == ["[[b]]."]
    assert (found[1].link.source_id, found[1].link.target_id) == ("up", "a")

    by_words = await related_passages(links, name, "a", text="a warm place", limit=1)
    assert [(it.hit.document_id, it.hit.chunk_index) for it in by_words] == [("b", 1)]
    assert by_words[0].hit.scores.lexical > 0
    # What the search found is not found again.
    beside = await related_passages(links, name, "a", "b", "up", vector=packed([1, 0]))
    assert [it.hit.document_id for it in beside] == ["d", "c"]
    only = retriever.Filter(equals=retriever.Filter.Equals(key="kind"))
    only.equals.value.string_value = "note"
    filtered = await related_passages(links, name, "a", vector=packed([1, 0]), filter=only)
    assert [it.hit.document_id for it in filtered] == ["b"]
    assert await related_passages(links, name, "alone", vector=packed([1, 0])) == []


async def test_passages_for_a_vector_of_another_model_are_refused(
    stub: Stub, links: LinkServiceAsyncStub, name: str
) -> None:
    query = {"vector": packed([1, 0]), "embedding_revision": "another"}
    request = pb.RelatedPassagesRequest(collection=name, **query)  # type: ignore[arg-type]
    request.seeds.add(document_id="a")
    assert (await failure(links.RelatedPassages(request))).reason is Reason.MODEL_MISMATCH
