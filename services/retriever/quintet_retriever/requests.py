"""Reads what callers send: checks every field, then turns messages into models."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf import struct_pb2

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever.filter_parsing import parse_filter
from quintet_retriever.models import (
    ENGLISH,
    LANGUAGES,
    Chunk,
    DocumentInput,
    Metadata,
    Mode,
    NewCollection,
    SearchRequest,
)
from quintet_retriever.search_state import MAX_STATE_BYTES
from quintet_retriever.settings import Settings
from quintet_retriever.vectors import FLOAT_BYTES
from quintet_servicekit.consistency import Epoch, decode_token
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.validation import Checks

MAX_DIMENSION = 4_000
MAX_ID_CHARS = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_K = 200
DEFAULT_K = 10
MAX_QUESTION_CHARS = 10_000
MAX_TOKENS = 2**31 - 1
"""What the database's column holds."""

_COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_MODES = {
    pb.SEARCH_MODE_DENSE: Mode.DENSE,
    pb.SEARCH_MODE_LEXICAL: Mode.LEXICAL,
    pb.SEARCH_MODE_HYBRID: Mode.HYBRID,
}


def collection_name(name: str, field: str = "collection") -> str:
    """Return the name if a collection may have it. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, field, name)
    checks.done()
    return name


def switch(request: pb.SwitchCollectionsRequest) -> tuple[str, str, Epoch]:
    """Return both names and the epoch that the first is to be at. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, "name", request.name)
    check_name(checks, "other", request.other)
    if request.name == request.other:
        checks.refuse("other", "must be another collection")
    checks.done()
    expected = decode_token(request.name, request.consistency_token, "consistency_token")
    return request.name, request.other, expected


def document_id(collection: str, identifier: str) -> tuple[str, str]:
    """Return both if they are well-formed. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, "collection", collection)
    check_id(checks, "id", identifier)
    checks.done()
    return collection, identifier


def invalidation(request: pb.InvalidateCollectionRequest) -> tuple[str, str]:
    """Return the collection, and the document or "" for all. Raises INVALID_FIELD."""
    if request.document_id:
        return document_id(request.collection, request.document_id)
    return collection_name(request.collection), ""


def page_size(size: int) -> int:
    """Return the number of items of a page. Raises INVALID_FIELD."""
    checks = Checks()
    checks.number("page_size", size, least=0, most=MAX_PAGE)
    checks.done()
    return size or DEFAULT_PAGE


def new_collection(request: pb.CreateCollectionRequest) -> NewCollection:
    """Return the collection to make. Raises INVALID_FIELD or INPUT_TOO_LONG."""
    checks = Checks()
    check_name(checks, "name", request.name)
    checks.text("embedding_model", request.embedding_model, max_chars=200)
    checks.text("embedding_revision", request.embedding_revision, max_chars=200)
    checks.number("dimension", request.dimension, least=1, most=MAX_DIMENSION)
    checks.text("description", request.description, max_chars=1_000, required=False)
    language = request.language or ENGLISH
    if language not in LANGUAGES:
        checks.refuse("language", f"must be one of {', '.join(sorted(LANGUAGES))}")
    checks.done()
    return NewCollection(
        name=request.name,
        embedding_model=request.embedding_model,
        embedding_revision=request.embedding_revision,
        dimension=request.dimension,
        description=request.description,
        language=language,
    )


def documents(request: pb.UpsertDocumentsRequest, settings: Settings) -> list[DocumentInput]:
    """Return the documents to write.

    Raises INVALID_FIELD, INPUT_TOO_LONG, BATCH_TOO_LARGE or DUPLICATE_ID. Vectors
    are the engine's to check: it knows their dimension.
    """
    checks = Checks()
    check_name(checks, "collection", request.collection)
    checks.text("embedding_revision", request.embedding_revision, max_chars=200, required=False)
    checks.batch("documents", request.documents, max_items=settings.max_documents)
    found = [
        _document(checks, f"documents[{i}]", message, settings)
        for i, message in enumerate(request.documents)
    ]
    checks.done()
    _check_distinct([document.id for document in found])
    return found


def search_request(request: pb.SearchRequest) -> SearchRequest:
    """Return the search to run. Raises INVALID_FIELD, INPUT_TOO_LONG or INVALID_FILTER."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    checks.number("k", request.k, least=0, most=MAX_K)
    checks.text("embedding_revision", request.embedding_revision, max_chars=200, required=False)
    has_text, has_vector = bool(request.text.strip()), bool(request.vector)
    mode = _MODES.get(request.mode)
    if request.mode == pb.SEARCH_MODE_UNSPECIFIED:
        mode = Mode.HYBRID if has_text and has_vector else Mode.DENSE if has_vector else None
        mode = Mode.LEXICAL if mode is None and has_text else mode
        if mode is None:
            checks.refuse("text", "or vector must be given")
    elif mode is None:
        checks.refuse("mode", "must be one of the search modes")
    checks.text(
        "text",
        request.text,
        max_chars=MAX_QUESTION_CHARS,
        required=mode in (Mode.LEXICAL, Mode.HYBRID),
    )
    if mode in (Mode.DENSE, Mode.HYBRID):
        check_packed(checks, "vector", request.vector)
    if len(request.known_state) > MAX_STATE_BYTES:
        checks.refuse("known_state", f"must have at most {MAX_STATE_BYTES} bytes")
    checks.done()
    assert mode is not None
    return SearchRequest(
        mode=mode,
        text=request.text,
        vector=request.vector,
        embedding_revision=request.embedding_revision,
        k=request.k or DEFAULT_K,
        condition=parse_filter(request.filter) if request.HasField("filter") else None,
        at_least=_at_least(request.collection, request.consistency),
        fully_consistent=request.consistency.fully_consistent,
        known_state=request.known_state,
    )


def _at_least(collection: str, consistency: pb.Consistency) -> Epoch | None:
    if consistency.WhichOneof("requirement") != "at_least_as_fresh":
        return None
    return decode_token(collection, consistency.at_least_as_fresh)


def _document(
    checks: Checks, field: str, message: pb.DocumentInput, settings: Settings
) -> DocumentInput:
    check_id(checks, f"{field}.id", message.id)
    checks.text(f"{field}.title", message.title, max_chars=1_000, required=False)
    checks.text(f"{field}.content_hash", message.content_hash, max_chars=200, required=False)
    # Copied out once: each access of a protobuf string decodes it again.
    content = message.content
    checks.text(f"{field}.content", content, max_chars=settings.max_content_chars, blank_ok=True)
    checks.batch(f"{field}.chunks", message.chunks, max_items=settings.max_chunks)
    return DocumentInput(
        id=message.id,
        title=message.title,
        content=content,
        content_hash=message.content_hash,
        metadata=_metadata(checks, f"{field}.metadata", message.metadata),
        chunks=_chunks(checks, f"{field}.chunks", message.chunks, content, settings),
        plain=message.plain,
    )


def _chunks(
    checks: Checks, field: str, messages: Sequence[pb.Chunk], content: str, settings: Settings
) -> tuple[Chunk, ...]:
    chunks = tuple(
        Chunk(chunk.text, chunk.start, chunk.end, chunk.tokens, chunk.vector) for chunk in messages
    )
    start_before = 0
    for i, chunk in enumerate(chunks):
        here = f"{field}[{i}]"
        checks.text(f"{here}.text", chunk.text, max_chars=settings.max_chunk_chars, blank_ok=True)
        if not start_before <= chunk.start < chunk.end <= len(content):
            checks.refuse(
                here, "must not be empty, lie within the content, and not begin before the last"
            )
        elif content[chunk.start : chunk.end] != chunk.text:
            checks.refuse(f"{here}.text", "must be the content from start to end, verbatim")
        if not 1 <= chunk.tokens <= MAX_TOKENS:
            checks.refuse(f"{here}.tokens", f"must lie between 1 and {MAX_TOKENS}")
        check_packed(checks, f"{here}.vector", chunk.vector)
        start_before = chunk.start
    return chunks


def _metadata(checks: Checks, field: str, message: struct_pb2.Struct) -> Metadata:
    faults: list[str] = []
    found = {key: _json(value, faults) for key, value in message.fields.items()}
    if any("\0" in key for key in found):
        faults.append("must not contain NUL")
    for fault in dict.fromkeys(faults):
        checks.refuse(field, fault)
    if not faults:
        size = len(json.dumps(found, ensure_ascii=False).encode())
        if size > MAX_METADATA_BYTES:
            raise ServiceError(
                Reason.INPUT_TOO_LONG,
                f"{field} has {size} bytes as JSON, and at most {MAX_METADATA_BYTES} are accepted",
                metadata={
                    "limit": str(MAX_METADATA_BYTES),
                    "actual": str(size),
                    "unit": "bytes",
                },
                violations=[Violation(field, f"must have at most {MAX_METADATA_BYTES} bytes")],
            )
    return found


def _json(value: struct_pb2.Value, faults: list[str]) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            fields = value.struct_value.fields
            if any("\0" in key for key in fields):
                faults.append("must not contain NUL")
            return {key: _json(inner, faults) for key, inner in fields.items()}
        case "list_value":
            return [_json(inner, faults) for inner in value.list_value.values]
        case "string_value":
            if "\0" in value.string_value:
                faults.append("must not contain NUL")
            return value.string_value
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                faults.append("must hold finite numbers")
                return None
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
    return None


def check_name(checks: Checks, field: str, name: str) -> None:
    """Refuse a name that no collection may have."""
    if not _COLLECTION_NAME.fullmatch(name):
        checks.refuse(field, f"must match {_COLLECTION_NAME.pattern}")


def check_id(checks: Checks, field: str, identifier: str) -> None:
    """Refuse an id that no document may have."""
    if not 1 <= len(identifier) <= MAX_ID_CHARS or _CONTROL.search(identifier):
        checks.refuse(
            field, f"must have 1 to {MAX_ID_CHARS} characters, none of them a control character"
        )


def check_packed(checks: Checks, field: str, data: bytes) -> None:
    """Refuse what is no vector."""
    if not data or len(data) % FLOAT_BYTES:
        checks.refuse(field, "must be packed 32-bit floats")


def _check_distinct(identifiers: Sequence[str]) -> None:
    seen = set()
    for identifier in identifiers:
        if identifier in seen:
            raise ServiceError(
                Reason.DUPLICATE_ID,
                "a document's id occurs twice in the batch",
                metadata={"document_id": identifier},
            )
        seen.add(identifier)
