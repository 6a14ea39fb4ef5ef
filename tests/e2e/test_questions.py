"""Questions and documents through five real processes."""

from __future__ import annotations

import asyncio
import math
from pydoc_data.topics import topics
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value
from support.gateway import gateway_stub, ingest, new_collection, reason
from support.stack import TestStack

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

DOCUMENTS = [
    pb.Document(id=name, title=name, content=topics[name])
    for name in ("with", "try", "assert", "pass", "nonlocal", "global")
]
QUESTION = "What does the assert statement insert into a program?"


async def test_an_answer_cites_verbatim_what_its_documents_say(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        answer = await stub.Ask(pb.AskRequest(collection=name, question=QUESTION))
    assert answer.answer
    assert answer.citations
    texts = {document.id: document.content for document in DOCUMENTS}
    for citation in answer.citations:
        source = texts[citation.document_id][citation.document_start : citation.document_end]
        said = answer.answer[citation.answer_start : citation.answer_end]
        assert citation.support < 1 or " ".join(source.split()) == " ".join(said.split())
        passage = answer.passages[citation.passage - 1]
        assert passage.number == citation.passage
        assert passage.hit.document_id == citation.document_id
    assert "assert" in {passage.hit.document_id for passage in answer.passages}
    assert [hop.service for hop in answer.trail.hops][-4:] == [
        "embedder",
        "retriever",
        "tokenizer",
        "generator",
    ]
    assert answer.usage.embedding_tokens > 0


async def test_a_stream_sends_passages_first_and_usage_and_trail_last(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        request = pb.AskRequest(collection=name, question=QUESTION)
        events = [event async for event in stub.AskStream(request)]
        whole = await stub.Ask(request)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "passages_found"
    assert kinds[-1] == "completed"
    assert set(kinds[1:-1]) == {"text_delta", "citation", "sentence"}
    text = "".join(event.text_delta.text for event in events if event.HasField("text_delta"))
    assert text == whole.answer
    cited = [event.citation for event in events if event.HasField("citation")]
    assert cited == list(whole.citations)
    completed = events[-1].completed
    assert completed.trail.hops[-1].HasField("first_message")
    assert len(completed.trail.trace_id) == 32


async def test_the_local_model_streams_an_answer_too(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        request = pb.AskRequest(
            collection=name,
            question=QUESTION,
            model="smollm2-135m-instruct",
            max_tokens=8,
            passages=1,
        )
        events = [event async for event in stub.AskStream(request, timeout=60)]
    assert sum(event.HasField("text_delta") for event in events) > 1
    usage = events[-1].completed.usage
    assert 0 < usage.completion_tokens <= 8
    assert usage.prompt_tokens > 50
    assert events[-1].completed.model == "smollm2-135m-instruct"


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
async def test_every_mode_finds_the_right_document_first(stack: TestStack, mode: str) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        found = await stub.Search(
            pb.SearchRequest(
                collection=name,
                query="the pass statement is a null operation",
                mode=retriever_pb.SearchMode.Value(f"SEARCH_MODE_{mode.upper()}"),
                k=3,
            )
        )
    assert found.hits[0].document_id == "pass"
    assert found.mode == retriever_pb.SearchMode.Value(f"SEARCH_MODE_{mode.upper()}")
    assert [hit.score for hit in found.hits] == sorted((h.score for h in found.hits), reverse=True)


async def test_a_filter_limits_passages_to_matching_documents(stack: TestStack) -> None:
    def document(name: str, kind: str) -> pb.Document:
        metadata = json_format.ParseDict({"kind": kind}, Struct())
        return pb.Document(id=name, content=f"The {name} fruit is {kind}.", metadata=metadata)

    documents = [document("lemon", "sour"), document("fig", "sweet"), document("lime", "sour")]
    only_sweet = retriever_pb.Filter(
        equals=retriever_pb.Filter.Equals(key="kind", value=Value(string_value="sweet"))
    )
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, documents) as name:
        answer = await stub.Ask(
            pb.AskRequest(collection=name, question="Which fruit is sour?", filter=only_sweet)
        )
    assert [passage.hit.document_id for passage in answer.passages] == ["fig"]


async def test_ingesting_again_changes_nothing_until_the_document_does(stack: TestStack) -> None:
    document = pb.Document(id="a", title="A", content="Bees make honey.")
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        outcomes, versions = [], []
        for text in ("Bees make honey.", "Bees make honey.", "Bees make wax."):
            document.content = text
            (response,) = await ingest(stub, name, [document])
            outcomes.append(pb.IngestOutcome.Name(response.ingested.outcome))
            versions.append(response.ingested.version)
        stored = await stub.GetDocument(
            pb.GetDocumentRequest(collection=name, id="a", include_content=True)
        )
        collection = (await stub.GetCollection(pb.GetCollectionRequest(name=name))).collection
    assert [outcome.removeprefix("INGEST_OUTCOME_") for outcome in outcomes] == [
        "CREATED",
        "UNCHANGED",
        "REPLACED",
    ]
    assert versions == [1, 1, 2]
    assert stored.document.content == "Bees make wax."
    assert (collection.document_count, collection.chunk_count) == (1, 1)


async def test_a_deleted_document_is_never_cited_again(stack: TestStack) -> None:
    documents = [
        pb.Document(id="one", content="The tower is 300 metres tall."),
        pb.Document(id="two", content="The tower was built in 1889."),
    ]
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, documents) as name:
        await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id="one"))
        answer = await stub.Ask(pb.AskRequest(collection=name, question="How tall is the tower?"))
        listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name))
    assert {passage.hit.document_id for passage in answer.passages} == {"two"}
    assert [document.id for document in listed.documents] == ["two"]


async def test_a_refused_document_does_not_end_the_stream(stack: TestStack) -> None:
    documents = [
        pb.Document(id="good", content="Good text."),
        pb.Document(id="empty", content="  \n "),
        pb.Document(id="nul", content="a\0b"),
        pb.Document(id="good", content="The same id again."),
        pb.Document(id="", content="No id."),
        pb.Document(id="huge", content="x" * 50_000_000),
        pb.Document(id="infinite", content="Metadata that JSON cannot say."),
        pb.Document(id="last", content="Last text."),
    ]
    documents[-2].metadata.update({"a": [{"b": math.inf}]})
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        responses = await ingest(stub, name, documents)
        listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name))
    reasons = [
        error_reason_pb2.ErrorReason.Name(response.refused.reason).removeprefix("ERROR_REASON_")
        if response.HasField("refused")
        else "ingested"
        for response in responses
    ]
    assert reasons == [
        "ingested",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "DUPLICATE_ID",
        "INVALID_FIELD",
        "INPUT_TOO_LONG",
        "INVALID_FIELD",
        "ingested",
    ]
    assert [document.id for document in listed.documents] == ["good", "last"]


async def test_a_caller_who_leaves_mid_ingest_leaves_whole_documents_only(stack: TestStack) -> None:
    text = topics["try"]

    async def endless() -> Any:
        for number in range(10_000):
            yield pb.IngestRequest(
                collection=name, document=pb.Document(id=f"d{number:05}", content=text)
            )

    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        call = stub.Ingest(endless())
        acknowledged = [(await call.read()) for _ in range(3)]
        call.cancel()
        # What was under way may still commit; then nothing moves any more.
        for _ in range(2):
            await asyncio.sleep(0.5)
        listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=1000))
    stored = {document.id: document for document in listed.documents}
    assert {response.document_id for response in acknowledged} <= set(stored)
    # Twelve were under way, and as many may have been acknowledged unread.
    assert len(stored) <= 3 + 2 * 12
    assert {document.content_length for document in stored.values()} == {len(text)}
    assert len({document.chunk_count for document in stored.values()}) == 1


async def test_a_caller_who_leaves_mid_answer_frees_the_generator(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        request = pb.AskRequest(
            collection=name, question=QUESTION, model="smollm2-135m-instruct", max_tokens=2_000
        )
        call = stub.AskStream(request, timeout=120)
        async for event in call:
            if event.HasField("text_delta"):
                break
        call.cancel()
        request.max_tokens, request.passages = 1, 1
        # The model works for one caller at a time: it is free at once, not after
        # two thousand tokens.
        await stub.Ask(request, timeout=30)


def ask(**fields: Any) -> pb.AskRequest:
    return pb.AskRequest(**{"collection": "{}", "question": "What?", **fields})


BAD_QUESTIONS = {
    "empty": (ask(question=""), "INVALID_FIELD"),
    "blank": (ask(question=" \n\t"), "INVALID_FIELD"),
    "nul": (ask(question="a\0b"), "INVALID_FIELD"),
    "over-long": (ask(question="x" * 4_001), "INPUT_TOO_LONG"),
    "too many passages": (ask(passages=51), "INVALID_FIELD"),
    "too many answer tokens": (ask(max_tokens=5_000), "INVALID_FIELD"),
    "temperature": (ask(temperature=2.5), "INVALID_FIELD"),
    "no collection": (ask(collection=""), "INVALID_FIELD"),
    "a bad collection name": (ask(collection="No Such Name"), "INVALID_FIELD"),
    "unknown collection": (ask(collection="no-such-collection"), "COLLECTION_NOT_FOUND"),
    "unknown model": (ask(model="gpt-17"), "MODEL_NOT_FOUND"),
    "unknown template": (ask(template="no-such"), "TEMPLATE_NOT_FOUND"),
    "an empty filter": (
        ask(filter=retriever_pb.Filter(equals=retriever_pb.Filter.Equals())),
        "INVALID_FILTER",
    ),
    "a filter without condition": (ask(filter=retriever_pb.Filter()), "INVALID_FILTER"),
}


@pytest.mark.parametrize("what", BAD_QUESTIONS)
async def test_a_bad_question_gets_a_typed_error(stack: TestStack, what: str) -> None:
    request, expected = BAD_QUESTIONS[what]
    documents = [pb.Document(id="a", content="Some text on what is what.")]
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, documents) as name:
        request = pb.AskRequest.FromString(request.SerializeToString())
        request.collection = request.collection.replace("{}", name)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(request)
        assert reason(caught.value) == expected
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.AskStream(request):
                pass
        assert reason(caught.value) == expected


async def test_a_question_to_an_empty_collection_is_refused_honestly(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub) as name:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(pb.AskRequest(collection=name, question="Anything?"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(caught.value) == "NO_PASSAGES"


async def test_a_page_token_of_another_query_is_refused(stack: TestStack) -> None:
    documents = [pb.Document(id=f"d{number}", content="Text.") for number in range(3)]
    async with (
        gateway_stub(stack.gateway) as stub,
        new_collection(stub, documents) as name,
        new_collection(stub) as other,
    ):
        page = await stub.ListDocuments(pb.ListDocumentsRequest(collection=name, page_size=2))
        assert [document.id for document in page.documents] == ["d0", "d1"]
        rest = await stub.ListDocuments(
            pb.ListDocumentsRequest(collection=name, page_size=2, page_token=page.next_page_token)
        )
        assert [document.id for document in rest.documents] == ["d2"]
        assert rest.next_page_token == ""
        for collection, token in ((other, page.next_page_token), (name, "garbage")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListDocuments(
                    pb.ListDocumentsRequest(collection=collection, page_token=token)
                )
            assert reason(caught.value) == "INVALID_PAGE_TOKEN"


async def test_a_deadline_that_has_passed_ends_the_question(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, DOCUMENTS) as name:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(pb.AskRequest(collection=name, question=QUESTION), timeout=0.002)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_collections_are_made_once_listed_and_deleted(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub:
        async with new_collection(stub) as name:
            again = await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
            assert again.collection.embedding_model == "all-MiniLM-L6-v2"
            assert again.collection.dimension == 384
            listed = await stub.ListCollections(pb.ListCollectionsRequest(page_size=1000))
            assert name in {collection.name for collection in listed.collections}
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.CreateCollection(
                    pb.CreateCollectionRequest(name=name, embedding_model="no-such-model")
                )
            assert reason(caught.value) == "MODEL_NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetCollection(pb.GetCollectionRequest(name=name))
        assert reason(caught.value) == "COLLECTION_NOT_FOUND"


async def test_a_collection_made_anew_is_asked_anew(stack: TestStack) -> None:
    document = pb.Document(id="a", content="The capital of France is Paris.")
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [document]) as name:
        question = pb.AskRequest(collection=name, question="What is the capital of France?")
        assert (await stub.Ask(question)).answer
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(question)
        assert reason(caught.value) == "COLLECTION_NOT_FOUND"
        await stub.CreateCollection(pb.CreateCollectionRequest(name=name))


async def test_status_names_every_service_and_its_models(stack: TestStack) -> None:
    async with gateway_stub(stack.gateway) as stub:
        status = await stub.GetStatus(pb.GetStatusRequest())
    states = {service.service: service for service in status.services}
    assert set(states) == {"tokenizer", "embedder", "retriever", "generator"}
    assert {it.state for it in states.values()} == {pb.SERVICE_STATE_SERVING}
    assert {it.breaker.state for it in states.values()} == {pb.BREAKER_STATE_CLOSED}
    assert states["embedder"].models == ["all-MiniLM-L6-v2"]
    assert set(states["generator"].models) == {"extractive", "smollm2-135m-instruct"}


async def test_what_a_question_quotes_need_not_stand_in_a_passage(stack: TestStack) -> None:
    bees = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [bees]) as name:
        question = 'What do "honey bees" make?'
        assert "honey" in (await stub.Ask(pb.AskRequest(collection=name, question=question))).answer
        request = pb.SearchRequest(collection=name, query=question)
        assert not (await stub.Search(request)).hits
