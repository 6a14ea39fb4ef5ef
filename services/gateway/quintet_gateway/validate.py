"""Checks of what callers send to the gateway, before any call is made.

Names, filters and page tokens are the retriever's to check: it knows their rules.
"""

from __future__ import annotations

import math

from google.protobuf import struct_pb2

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.expansion import MAX_LINKED
from quintet_gateway.refining import MAX_CANDIDATES
from quintet_servicekit.validation import Checks

MAX_PASSAGES = 50
MAX_HITS = 200
MAX_ANSWER_TOKENS = 4_096
MAX_TURNS = 16
MAX_ANSWER_CHARS = 16_000
MAX_NAME_CHARS = 200
MAX_METADATA_BYTES = 64 * 1024


def question(request: pb.AskRequest, *, max_chars: int) -> None:
    """Raise `ServiceError` for a question that breaks its documented bounds."""
    checks = Checks()
    checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS)
    checks.text("question", request.question, max_chars=max_chars)
    checks.number("passages", request.passages, least=0, most=MAX_PASSAGES)
    checks.text("model", request.model, max_chars=MAX_NAME_CHARS, required=False)
    checks.text("template", request.template, max_chars=MAX_NAME_CHARS, required=False)
    checks.text("trial_unit", request.trial_unit, max_chars=MAX_NAME_CHARS, required=False)
    checks.number("max_tokens", request.max_tokens, least=0, most=MAX_ANSWER_TOKENS)
    checks.number("temperature", request.temperature, least=0, most=2)
    if request.max_staleness.seconds < 0 or request.max_staleness.nanos < 0:
        checks.refuse("max_staleness", "must not be negative")
    if request.cache not in pb.CachePolicy.values():
        checks.refuse("cache", "is not a value of CachePolicy")
    if len(request.turns) > MAX_TURNS:
        checks.refuse("turns", f"must be at most {MAX_TURNS}")
    for place, turn in enumerate(request.turns[:MAX_TURNS]):
        checks.text(f"turns[{place}].question", turn.question, max_chars=max_chars)
        checks.text(
            f"turns[{place}].answer", turn.answer, max_chars=MAX_ANSWER_CHARS, required=False
        )
    checks.number("abstain_below", request.abstain_below, least=0, most=1)
    _refinement(checks, request.refinement)
    checks.number("linked_passages", request.linked_passages, least=0, most=MAX_LINKED)
    checks.done()


def purge(request: pb.PurgeCacheRequest, *, max_chars: int) -> None:
    """Raise `ServiceError` for a purge that names nothing, or breaks bounds."""
    checks = Checks()
    subject = request.WhichOneof("subject")
    if subject == "question":
        question(request.question, max_chars=max_chars)
    elif subject == "document":
        checks.text("document.collection", request.document.collection, max_chars=MAX_NAME_CHARS)
        checks.text("document.id", request.document.id, max_chars=512)
    elif subject == "collection":
        checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS)
    elif not request.everything:
        checks.refuse("subject", "must be set")
    checks.done()


def query(request: pb.SearchRequest, *, max_chars: int) -> None:
    """Raise `ServiceError` for a search that breaks its documented bounds."""
    checks = Checks()
    checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS)
    checks.text("query", request.query, max_chars=max_chars)
    checks.number("k", request.k, least=0, most=MAX_HITS)
    _refinement(checks, request.refinement)
    checks.number("linked_passages", request.linked_passages, least=0, most=MAX_LINKED)
    checks.done()


def _refinement(checks: Checks, refinement: pb.Refinement) -> None:
    checks.number("refinement.candidates", refinement.candidates, least=0, most=MAX_CANDIDATES)
    for name in ("collapse_similarity", "mmr_lambda"):
        checks.number(f"refinement.{name}", getattr(refinement, name), least=0, most=1)


def document(request: pb.IngestRequest, *, max_chars: int) -> None:
    """Raise `ServiceError` for a document that breaks its documented bounds."""
    checks = Checks()
    checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS)
    checks.text("document.id", request.document.id, max_chars=512)
    checks.text("document.title", request.document.title, max_chars=1_000, required=False)
    checks.text("document.content", request.document.content, max_chars=max_chars)
    if request.document.format not in tokenizer_pb.TextFormat.values():
        checks.refuse("document.format", "is no format that this server knows")
    if request.document.metadata.ByteSize() > MAX_METADATA_BYTES:
        checks.refuse("document.metadata", f"must have at most {MAX_METADATA_BYTES} bytes")
    elif not all(map(_is_json, request.document.metadata.fields.values())):
        checks.refuse("document.metadata", "must hold finite numbers")
    checks.request_id("request_id", request.request_id)
    checks.done()


def _is_json(value: struct_pb2.Value) -> bool:
    """Whether JSON can say the value: it has no infinity and no NaN."""
    match value.WhichOneof("kind"):
        case "number_value":
            return math.isfinite(value.number_value)
        case "struct_value":
            return all(map(_is_json, value.struct_value.fields.values()))
        case "list_value":
            return all(map(_is_json, value.list_value.values))
    return True


def collection(request: pb.CreateCollectionRequest) -> None:
    """Raise `ServiceError` for a collection that breaks its documented bounds."""
    checks = Checks()
    checks.text("name", request.name, max_chars=MAX_NAME_CHARS)
    checks.text("embedding_model", request.embedding_model, max_chars=200, required=False)
    checks.text("description", request.description, max_chars=1_000, required=False)
    checks.request_id("request_id", request.request_id)
    checks.done()


def reembedding(request: pb.ReembedCollectionRequest) -> None:
    """Raise `ServiceError` for a request that breaks its documented bounds."""
    checks = Checks()
    checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS)
    checks.text("beside", request.beside, max_chars=MAX_NAME_CHARS, required=False)
    checks.text("embedding_model", request.embedding_model, max_chars=200, required=False)
    if request.beside == request.collection:
        checks.refuse("beside", "must be another collection")
    if not 0 <= request.least_overlap <= 1:
        checks.refuse("least_overlap", "must be from 0 to 1")
    checks.done()
