"""Reads what callers send about links: checks every field, then turns messages into models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet_retriever.filter_parsing import parse_filter
from quintet_retriever.links.engine import Position
from quintet_retriever.links.models import (
    Direction,
    LinkQuery,
    LinkType,
    NewLink,
    PassageQuery,
    RelatedQuery,
    Seed,
)
from quintet_retriever.pages import key_of_token, page_token
from quintet_retriever.requests import MAX_QUESTION_CHARS, check_id, check_name, check_packed
from quintet_servicekit.validation import Checks

MAX_NOTE_CHARS = 1_000
MAX_SUGGESTIONS = 50
DEFAULT_SUGGESTIONS = 10
DEFAULT_CONFIDENCE = 0.6
"""One in three pairs of such a confidence was linked by the authors of the notes that it was
measured on; docs/links.md has more."""
MAX_SEEDS = 20
MAX_HOPS = 2
MAX_FAN_OUT = 100
DEFAULT_FAN_OUT = 25
MAX_RELATED = 200
DEFAULT_RELATED = 20
MAX_FOUND = 200
"""What a search finds at most."""
MAX_PASSAGES = 50
DEFAULT_PASSAGES = 3

_DIRECTIONS = {
    pb.LINK_DIRECTION_UNSPECIFIED: Direction.BOTH,
    pb.LINK_DIRECTION_BOTH: Direction.BOTH,
    pb.LINK_DIRECTION_FROM: Direction.FROM,
    pb.LINK_DIRECTION_TO: Direction.TO,
}

Stating = TypeVar("Stating", pb.CreateLinkRequest, pb.AcceptSuggestionRequest)


def new_link(request: Stating) -> NewLink:
    """Return the link that a request states. Raises INVALID_FIELD or INPUT_TOO_LONG."""
    checks = Checks()
    _check_pair(checks, request.collection, request.source_id, request.target_id)
    checks.text("note", request.note, max_chars=MAX_NOTE_CHARS, required=False)
    _check_type(checks, "type", request.type)
    checks.done()
    return NewLink(request.source_id, request.target_id, link_type(request.type), request.note)


def deletion(request: pb.DeleteLinkRequest) -> LinkType:
    """Return the type of the link to delete. Raises INVALID_FIELD."""
    checks = Checks()
    _check_pair(checks, request.collection, request.source_id, request.target_id)
    _check_type(checks, "type", request.type)
    checks.done()
    return link_type(request.type)


def dismissal(request: pb.DismissSuggestionRequest) -> None:
    """Check a dismissal. Raises INVALID_FIELD."""
    checks = Checks()
    _check_pair(checks, request.collection, request.source_id, request.target_id)
    checks.done()


def rename(request: pb.RenameDocumentRequest) -> None:
    """Check a renaming. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    check_id(checks, "id", request.id)
    check_id(checks, "new_id", request.new_id)
    if request.id == request.new_id:
        checks.refuse("new_id", "must be another id")
    checks.done()


def link_query(request: pb.ListLinksRequest) -> LinkQuery:
    """Return which links to list. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    if request.document_id:
        check_id(checks, "document_id", request.document_id)
    types = _types(checks, request.types)
    direction = _direction(checks, request.direction)
    checks.done()
    return LinkQuery(request.document_id, direction, types)


def suggestion_bounds(request: pb.SuggestLinksRequest) -> tuple[int, float]:
    """Return the most suggestions and the least confidence. Raises INVALID_FIELD."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    check_id(checks, "document_id", request.document_id)
    checks.number("limit", request.limit, least=0, most=MAX_SUGGESTIONS)
    given = request.HasField("min_confidence")
    least = request.min_confidence if given else DEFAULT_CONFIDENCE
    checks.number("min_confidence", least, least=0, most=1)
    checks.done()
    return request.limit or DEFAULT_SUGGESTIONS, least


def related_query(request: pb.RelatedRequest) -> RelatedQuery:
    """Return what to relate. Raises INVALID_FIELD or BATCH_TOO_LARGE."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    seeds = _seeds(checks, request.seeds, MAX_SEEDS)
    checks.number("hops", request.hops, least=0, most=MAX_HOPS)
    checks.number("fan_out", request.fan_out, least=0, most=MAX_FAN_OUT)
    checks.number("limit", request.limit, least=0, most=MAX_RELATED)
    types = _types(checks, request.types)
    direction = _direction(checks, request.direction)
    checks.done()
    return RelatedQuery(
        seeds=seeds,
        hops=request.hops or MAX_HOPS,
        fan_out=request.fan_out or DEFAULT_FAN_OUT,
        limit=request.limit or DEFAULT_RELATED,
        direction=direction,
        types=types,
    )


def passage_query(request: pb.RelatedPassagesRequest) -> PassageQuery:
    """Return which passages to find. Raises INVALID_FIELD, INPUT_TOO_LONG, BATCH_TOO_LARGE
    or INVALID_FILTER."""
    checks = Checks()
    check_name(checks, "collection", request.collection)
    seeds = _seeds(checks, request.seeds, MAX_FOUND)
    checks.text("text", request.text, max_chars=MAX_QUESTION_CHARS, required=not request.vector)
    if request.vector:
        check_packed(checks, "vector", request.vector)
    checks.text("embedding_revision", request.embedding_revision, max_chars=200, required=False)
    checks.number("limit", request.limit, least=0, most=MAX_PASSAGES)
    checks.done()
    return PassageQuery(
        seeds=seeds,
        text=request.text,
        vector=request.vector,
        embedding_revision=request.embedding_revision,
        condition=parse_filter(request.filter) if request.HasField("filter") else None,
        limit=request.limit or DEFAULT_PASSAGES,
    )


def link_type(value: int) -> LinkType:
    """Return the type of a message's value; related for none."""
    return LinkType(value or LinkType.RELATED)


def position_of(token: str, request: Message) -> Position:
    """Return the place after which a page begins. Raises INVALID_PAGE_TOKEN."""
    key = key_of_token(token, *_listing(request))
    if not key:
        return Position()
    side, after = json.loads(key)
    return Position(Direction(side), tuple(after))


def token_of(position: Position, request: Message) -> str:
    """Return the token of the page that begins after a place."""
    return page_token(json.dumps([position.side.value, position.after]), *_listing(request))


def _listing(request: Message) -> tuple[str, bytes]:
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("page_token")
    bare.ClearField("page_size")
    return type(request).DESCRIPTOR.name, bare.SerializeToString(deterministic=True)


def _seeds(checks: Checks, seeds: Sequence[pb.RelatedRequest.Seed], max_items: int) -> list[Seed]:
    checks.batch("seeds", seeds, max_items=max_items)
    for i, seed in enumerate(seeds):
        check_id(checks, f"seeds[{i}].document_id", seed.document_id)
        if (seed.end and seed.end <= seed.start) or (seed.start and not seed.end):
            checks.refuse(f"seeds[{i}].end", "must be greater than start")
    return [Seed(it.document_id, it.start, it.end) for it in seeds]


def _check_pair(checks: Checks, collection: str, source_id: str, target_id: str) -> None:
    check_name(checks, "collection", collection)
    check_id(checks, "source_id", source_id)
    check_id(checks, "target_id", target_id)
    if source_id == target_id:
        checks.refuse("target_id", "must not be the source: no document links to itself")


def _check_type(checks: Checks, field: str, value: int) -> None:
    if value not in pb.LinkType.values():
        checks.refuse(field, "must be a link type")


def _types(checks: Checks, values: Sequence[int]) -> frozenset[LinkType]:
    for i, value in enumerate(values[: len(LinkType) + 1]):
        if value == pb.LINK_TYPE_UNSPECIFIED or value not in pb.LinkType.values():
            checks.refuse(f"types[{i}]", "must be a link type")
            return frozenset()
    if len(values) > len(LinkType):
        checks.refuse("types", f"must hold at most {len(LinkType)} items")
        return frozenset()
    return frozenset(LinkType(it) for it in values)


def _direction(checks: Checks, value: pb.LinkDirection.ValueType) -> Direction:
    if value not in _DIRECTIONS:
        checks.refuse("direction", "must be a direction")
    return _DIRECTIONS.get(value, Direction.BOTH)
