"""Turns links into the contract's messages."""

from __future__ import annotations

from google.protobuf import timestamp_pb2

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet_retriever.links.models import (
    Link,
    Occurrence,
    RelatedDocument,
    RelatedPassage,
    Suggestion,
)
from quintet_retriever.responses import hit_message


def link_message(link: Link) -> pb.Link:
    """Return the link's message."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(link.create_time)
    return pb.Link(
        source_id=link.source_id,
        source_title=link.source_title,
        target_id=link.target_id,
        target_title=link.target_title,
        target=link.target,
        type=pb.LinkType.ValueType(link.type),
        status=pb.LinkStatus.ValueType(link.status),
        note=link.note,
        confidence=link.confidence,
        occurrences=map(_occurrence_message, link.occurrences),
        occurrence_count=link.occurrence_count,
        create_time=made,
    )


def suggestion_message(suggestion: Suggestion) -> pb.LinkSuggestion:
    """Return the suggestion's message."""
    return pb.LinkSuggestion(
        document_id=suggestion.document_id,
        title=suggestion.title,
        confidence=suggestion.confidence,
        status=pb.LINK_STATUS_SUGGESTED,
        source_chunk=suggestion.source_chunk,
        source_text=suggestion.source_text,
        target_chunk=suggestion.target_chunk,
        target_text=suggestion.target_text,
    )


def related_message(related: RelatedDocument) -> pb.RelatedDocument:
    """Return the message of a document in the neighbourhood."""
    return pb.RelatedDocument(
        document_id=related.document_id,
        title=related.title,
        score=related.score,
        path=map(link_message, related.path),
    )


def passage_message(found: RelatedPassage) -> pb.RelatedPassage:
    """Return the message of a passage that was found through a link."""
    return pb.RelatedPassage(hit=hit_message(found.hit), link=link_message(found.link))


def _occurrence_message(place: Occurrence) -> pb.LinkOccurrence:
    return pb.LinkOccurrence(
        start=place.start,
        end=place.end,
        sentence=place.sentence,
        label=place.label,
        fragment=place.fragment,
        embed=place.embed,
    )
