"""How a document's chunks and vectors are made, as its content hash tells it."""

from __future__ import annotations

import hashlib
import json

from google.protobuf import json_format

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2 import TEXT_FORMAT_PLAIN
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chunks import ChunkPlan

METHOD_VERSION = 5
"""Raise it when documents are cut or embedded in another way, so that the next
ingest makes them anew."""

_MARKDOWN, _PLAIN, _WHOLE = "markdown", "plain", "whole"


def content_hash(document: pb.Document, model: EmbeddingModel, plan: ChunkPlan) -> str:
    """Return a digest of all that a document's chunks are made from: its form, a digest of
    how it is cut and embedded, and one of the document, parted by dots.

    Equal digests mean that ingesting again would change nothing.
    """
    form = _WHOLE if document.whole else _MARKDOWN
    if form == _MARKDOWN and document.format == TEXT_FORMAT_PLAIN:
        form = _PLAIN
    method = {
        "version": METHOD_VERSION,
        "model": [model.name, model.revision],
        "plan": [] if document.whole else plan.shape,
    }
    made_from = {
        "title": document.title,
        "content": document.content,
        "metadata": json_format.MessageToDict(document.metadata),
    }
    return f"{form}.{_digest(method)[:16]}.{_digest(made_from)}"


def is_cut_alike(one: str, other: str) -> bool:
    """Whether the documents of two content hashes are cut and embedded in the same way."""
    return one.split(".")[:2] == other.split(".")[:2] and one.count(".") == 2


def set_form(document: pb.Document, standing_hash: str) -> None:
    """Have the document cut as the one that has that content hash was."""
    form = standing_hash.split(".")[0]
    document.whole = form == _WHOLE
    if form == _PLAIN:
        document.format = TEXT_FORMAT_PLAIN


def _digest(made_from: object) -> str:
    canonical = json.dumps(made_from, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
