"""By what a repeated write is known: the caller's request id, and what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever.models import RequestKey
from quintet_servicekit.validation import Checks

Write: TypeAlias = (
    pb.CreateCollectionRequest
    | pb.DeleteCollectionRequest
    | pb.UpsertDocumentsRequest
    | pb.DeleteDocumentRequest
)


def request_key(request: Write) -> RequestKey | None:
    """Return the key of a write; None if its caller gave none. Raises INVALID_FIELD."""
    if not request.request_id:
        return None
    checks = Checks()
    checks.request_id("request_id", request.request_id)
    checks.done()
    digest = hashlib.sha256(request.DESCRIPTOR.full_name.encode())
    for part in _parts(request):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return RequestKey(request.request_id, digest.digest())


def _parts(request: Write) -> Iterator[bytes]:
    if not isinstance(request, pb.UpsertDocumentsRequest):
        yield request.SerializeToString(deterministic=True)
        return
    yield request.collection.encode()
    for document in request.documents:
        yield document.id.encode()
        # Vectors that are computed again differ in their last bits, and are left out
        # where the writer says what they were made from.
        yield document.content_hash.encode() or document.SerializeToString(deterministic=True)
