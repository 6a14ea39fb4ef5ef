"""What another tenant has is told of as what nobody has, by every RPC of the gateway."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from support import tenants
from support.stack import TestStack

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import feedback_service_pb2 as feedback_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import key_service_pb2 as key_pb
from quintet.gateway.v1 import usage_service_pb2 as usage_pb
from quintet.gateway.v1.explain_service_pb2_grpc import ExplainServiceStub
from quintet.gateway.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.key_service_pb2_grpc import KeyServiceStub
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.gateway.v1.usage_service_pb2_grpc import UsageServiceStub
from quintet.retriever.v1 import link_service_pb2 as link_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.access import scopes
from quintet_servicekit.api_key import new_key

VICTIM, ATTACKER = "ants", "bees"
STUBS: Mapping[str, Any] = {
    "quintet.gateway.v1.GatewayService": GatewayServiceStub,
    "quintet.gateway.v1.LinkService": LinkServiceStub,
    "quintet.gateway.v1.ExplainService": ExplainServiceStub,
    "quintet.gateway.v1.FeedbackService": FeedbackServiceStub,
    "quintet.gateway.v1.UsageService": UsageServiceStub,
    "quintet.gateway.v1.KeyService": KeyServiceStub,
}
NAME_NOTHING = {
    "quintet.gateway.v1.GatewayService/GetStatus",
    "quintet.gateway.v1.GatewayService/GetCacheStats",
    "quintet.gateway.v1.KeyService/CreateKey",
    "quintet.cache.v1.CacheService/GetStats",
    "quintet.cache.v1.CacheService/Purge",
    "quintet.status.v1.StatusService/ListBreakers",
}
"""RPCs that name nothing anybody could have; of CreateKey see `test_access.py`."""


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Names:
    """What a request names: all of the victim's, or of nobody. `own` is a collection of the
    attacker's, whatever it names otherwise."""

    collection: str
    own: str
    document: str
    other_document: str
    answer: str
    key: str
    consistency: str
    page: str
    keys_page: str
    usage_page: str

    def without(self, text: str) -> str:
        """Return a text with these names, which a caller has sent, taken out."""
        for name in (self.collection, self.document, self.other_document, self.answer, self.key):
            text = text.replace(name, "NAME")
        # A failed question has an id of its own.
        return _UUID.sub("ID", text)


Case = tuple[str, Callable[[Names], Message]]


def _link(kind: Any, collection: str, it: Names, **fields: Any) -> Message:
    message: Message = kind(
        collection=collection, source_id=it.document, target_id=it.other_document, **fields
    )
    return message


def _asked(kind: Any = pb.AskRequest, **fields: Any) -> Any:
    return kind(question="What grows in the garden?", **fields)


def _cases(collection: Callable[[Names], str]) -> list[Case]:
    """Return requests about things of a collection."""
    gateway, links = "quintet.gateway.v1.GatewayService/", "quintet.gateway.v1.LinkService/"

    def about(kind: Any, name: str = "collection", **fields: str) -> Callable[[Names], Message]:
        def of(it: Names) -> Message:
            message: Message = kind(**{name: collection(it)})
            for field, attribute in fields.items():
                setattr(message, field, getattr(it, attribute))
            return message

        return of

    def consistent(it: Names) -> retriever_pb.Consistency:
        return retriever_pb.Consistency(at_least_as_fresh=it.consistency)

    return [
        (gateway + "Ask", lambda it: _asked(collection=collection(it), abstain_below=0)),
        (
            gateway + "Ask",
            lambda it: _asked(collection=collection(it), consistency=consistent(it)),
        ),
        (gateway + "AskStream", lambda it: _asked(collection=collection(it), abstain_below=0)),
        (gateway + "Search", lambda it: pb.SearchRequest(collection=collection(it), query="x y")),
        (
            gateway + "Search",
            lambda it: pb.SearchRequest(
                collection=collection(it), query="x y", consistency=consistent(it)
            ),
        ),
        (gateway + "GetDocument", about(pb.GetDocumentRequest, id="document")),
        (gateway + "ListDocuments", about(pb.ListDocumentsRequest)),
        (gateway + "ListDocuments", about(pb.ListDocumentsRequest, page_token="page")),
        (gateway + "DeleteDocument", about(pb.DeleteDocumentRequest, id="document")),
        (
            gateway + "ExplainCache",
            lambda it: pb.ExplainCacheRequest(request=_asked(collection=collection(it))),
        ),
        (
            gateway + "PurgeCache",
            lambda it: pb.PurgeCacheRequest(question=_asked(collection=collection(it))),
        ),
        (
            gateway + "PurgeCache",
            lambda it: pb.PurgeCacheRequest(
                document=pb.PurgeCacheRequest.DocumentName(
                    collection=collection(it), id=it.document
                )
            ),
        ),
        (gateway + "PurgeCache", about(pb.PurgeCacheRequest)),
        (links + "CreateLink", lambda it: _link(link_pb.CreateLinkRequest, collection(it), it)),
        (links + "DeleteLink", lambda it: _link(link_pb.DeleteLinkRequest, collection(it), it)),
        (links + "ListLinks", about(link_pb.ListLinksRequest, document_id="document")),
        (
            links + "ListLinks",
            about(link_pb.ListLinksRequest, document_id="document", page_token="page"),
        ),
        (links + "ListDanglingLinks", about(link_pb.ListDanglingLinksRequest)),
        (links + "ListDanglingLinks", about(link_pb.ListDanglingLinksRequest, page_token="page")),
        (links + "SuggestLinks", about(link_pb.SuggestLinksRequest, document_id="document")),
        (
            links + "AcceptSuggestion",
            lambda it: _link(link_pb.AcceptSuggestionRequest, collection(it), it),
        ),
        (
            links + "DismissSuggestion",
            lambda it: _link(link_pb.DismissSuggestionRequest, collection(it), it),
        ),
        (
            links + "Related",
            lambda it: link_pb.RelatedRequest(
                collection=collection(it),
                seeds=[link_pb.RelatedRequest.Seed(document_id=it.document)],
            ),
        ),
        (
            links + "RenameDocument",
            lambda it: link_pb.RenameDocumentRequest(
                collection=collection(it), id=it.document, new_id="moved"
            ),
        ),
    ]


def _of_collections() -> list[Case]:
    gateway = "quintet.gateway.v1.GatewayService/"
    return [
        (gateway + "GetCollection", lambda it: pb.GetCollectionRequest(name=it.collection)),
        (
            gateway + "ReembedCollection",
            lambda it: pb.ReembedCollectionRequest(collection=it.collection, beside="next"),
        ),
        (gateway + "ListCollections", lambda it: pb.ListCollectionsRequest(page_token=it.page)),
        (
            gateway + "Ingest",
            lambda it: pb.IngestRequest(
                collection=it.collection, document=pb.Document(id=it.document, content="Mine.")
            ),
        ),
        (gateway + "DeleteCollection", lambda it: pb.DeleteCollectionRequest(name=it.collection)),
        # Last: from here on the attacker has one of that name.
        (gateway + "CreateCollection", lambda it: pb.CreateCollectionRequest(name=it.collection)),
    ]


def _of_ids() -> list[Case]:
    feedback, keys = "quintet.gateway.v1.FeedbackService/", "quintet.gateway.v1.KeyService/"
    return [
        (
            "quintet.gateway.v1.ExplainService/Explain",
            lambda it: explain_pb.ExplainRequest(answer_id=it.answer),
        ),
        (
            feedback + "RateAnswer",
            lambda it: feedback_pb.RateAnswerRequest(answer_id=it.answer, score=3),
        ),
        (
            feedback + "GetFeedback",
            lambda it: feedback_pb.GetFeedbackRequest(collection=it.collection, comments=10),
        ),
        (
            "quintet.gateway.v1.UsageService/GetUsage",
            lambda it: usage_pb.GetUsageRequest(
                page_token=it.usage_page, group_by=[usage_pb.USAGE_GROUP_MODEL], page_size=1
            ),
        ),
        (keys + "ListKeys", lambda it: key_pb.ListKeysRequest(page_token=it.keys_page)),
        (keys + "RevokeKey", lambda it: key_pb.RevokeKeyRequest(key_id=it.key)),
        (keys + "RotateKey", lambda it: key_pb.RotateKeyRequest(key_id=it.key)),
    ]


CASES = [*_cases(lambda it: it.collection), *_cases(lambda it: it.own), *_of_ids()]
CASES += _of_collections()


class Caller:
    """A tenant, at every RPC of the gateway."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str) -> None:
        self._stubs = {name: stub(channel) for name, stub in STUBS.items()}
        self._metadata = [tenants.gateway_metadata(tenant)]

    async def call(self, method: str, request: Message) -> Any:
        """Return the response, or a stream's last."""
        service, _, name = method.rpartition("/")
        sent = iter([request]) if name == "Ingest" else request
        call = getattr(self._stubs[service], name)(sent, metadata=self._metadata, timeout=30)
        if not hasattr(call, "__aiter__"):
            return await call
        return [it async for it in call][-1]

    async def told(self, method: str, names: Names, request: Message) -> str:
        """Return all that the caller is told, but for the names that it sent."""
        try:
            response = await self.call(method, request)
        except grpc.aio.AioRpcError as error:
            trailers: dict[str, Any] = dict(cast(Any, error.trailing_metadata() or ()))
            status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
            return names.without(f"{error.code()} {error.details()} {status}")
        # What is counted, timed or drawn says nothing of what others have.
        for field in ("bill", "trail", "consistency_token", "epoch", "answer_id", "collection"):
            if field in response.DESCRIPTOR.fields_by_name:
                response.ClearField(field)
        return names.without(str(response))


async def _victims(victim: Caller, own: str) -> Names:
    """Let the victim have everything, and return what it is called."""
    gateway = "quintet.gateway.v1.GatewayService/"
    names = [f"test-{secrets.token_hex(6)}", own]
    ids = [f"garden-{secrets.token_hex(6)}" for _ in range(3)]
    for name in names:
        await victim.call(gateway + "CreateCollection", pb.CreateCollectionRequest(name=name))
        for number, identifier in enumerate(ids):
            document = pb.Document(
                id=identifier,
                content=f"In the garden grows number {number}. See [[{ids[0]}]] and [[nowhere]].",
            )
            request = pb.IngestRequest(collection=name, document=document)
            acknowledged = await victim.call(gateway + "Ingest", request)
            assert acknowledged.HasField("ingested")
    listed = await victim.call(
        gateway + "ListDocuments", pb.ListDocumentsRequest(collection=own, page_size=1)
    )
    answer = await victim.call(gateway + "Ask", _asked(collection=own, abstain_below=0))
    keys = "quintet.gateway.v1.KeyService/"
    made = [
        await victim.call(keys + "CreateKey", key_pb.CreateKeyRequest(name="one")) for _ in range(2)
    ]
    request_usage = usage_pb.GetUsageRequest(group_by=[usage_pb.USAGE_GROUP_MODEL], page_size=1)
    async with asyncio.timeout(30):
        while True:
            usage = await victim.call("quintet.gateway.v1.UsageService/GetUsage", request_usage)
            if usage.next_page_token:
                break
            await asyncio.sleep(0.1)
    return Names(
        collection=names[0],
        own=own,
        document=ids[0],
        other_document=ids[1],
        answer=answer.answer_id,
        key=made[0].key.id,
        consistency=acknowledged.ingested.consistency_token,
        page=listed.next_page_token,
        keys_page=made[0].key.id,
        usage_page=usage.next_page_token,
    )


def _nobodys(own: str, like: Names) -> Names:
    """Return names of nothing, as long as those."""
    return Names(
        collection=f"test-{secrets.token_hex(6)}",
        own=own,
        document=f"garden-{secrets.token_hex(6)}",
        other_document=f"garden-{secrets.token_hex(6)}",
        answer=str(UUID(int=UUID(like.answer).int ^ secrets.randbits(48))),
        key=new_key().id,
        consistency=_damaged(like.consistency),
        page=_damaged(like.page),
        keys_page=new_key().id,
        usage_page=_damaged(like.usage_page),
    )


def _damaged(token: str) -> str:
    return token[:2] + ("A" if token[2] != "A" else "B") + token[3:]


@pytest.fixture
async def channel(stack: TestStack) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(stack.gateway) as it:
        yield it


def test_every_rpc_is_tried() -> None:
    assert {method for method, _ in CASES} | NAME_NOTHING == set(scopes.NEEDED)


async def test_another_tenants_things_are_told_of_as_those_that_are_not_there(
    channel: grpc.aio.Channel,
) -> None:
    victim, attacker = Caller(channel, VICTIM), Caller(channel, ATTACKER)
    own = f"test-{secrets.token_hex(6)}"
    create = pb.CreateCollectionRequest(name=own)
    await attacker.call("quintet.gateway.v1.GatewayService/CreateCollection", create)
    theirs = await _victims(victim, own)
    nobodys = _nobodys(own, theirs)
    both = (theirs, nobodys)
    try:
        told = [
            [(method, await attacker.told(method, names, request(names))) for names in both]
            for method, request in CASES
        ]
        assert [its for its, _ in told] == [nobodys_ for _, nobodys_ in told]
        # All of it is still there.
        seen = await victim.call(
            "quintet.gateway.v1.GatewayService/GetDocument",
            pb.GetDocumentRequest(
                collection=theirs.collection, id=theirs.document, include_content=True
            ),
        )
        assert "grows number 0" in str(seen)
        explain = explain_pb.ExplainRequest(answer_id=theirs.answer)
        await victim.call("quintet.gateway.v1.ExplainService/Explain", explain)
    finally:
        for caller, names in (
            (victim, [theirs.collection, own]),
            (attacker, [theirs.collection, nobodys.collection, own]),
        ):
            for name in names:
                gone = pb.DeleteCollectionRequest(name=name)
                with suppress(grpc.aio.AioRpcError):  # it was not made
                    await caller.call("quintet.gateway.v1.GatewayService/DeleteCollection", gone)
