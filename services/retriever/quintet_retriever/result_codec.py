"""The binary form of a cached search result: its epoch, and the contract's response."""

from __future__ import annotations

import struct

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever.models import Hit, SearchResult
from quintet_retriever.responses import hit_message
from quintet_servicekit.cache import Codec
from quintet_servicekit.consistency import Epoch

SCHEMA = 2
"""Raised with every change of what `CODEC` writes."""

_EPOCH = struct.Struct(">QQ")


def encode(result: SearchResult) -> bytes:
    """Return the result's binary form."""
    message = pb.SearchResponse(
        hits=map(hit_message, result.hits), state=result.state, compared_all=result.compared_all
    )
    return _EPOCH.pack(result.epoch.collection, result.epoch.number) + message.SerializeToString()


def decode(raw: bytes) -> SearchResult:
    """Return the result of a binary form. Raises `struct.error` or `DecodeError`."""
    message = pb.SearchResponse.FromString(raw[_EPOCH.size :])
    hits = tuple(map(_hit, message.hits))
    epoch = Epoch(*_EPOCH.unpack_from(raw))
    return SearchResult(hits, epoch, message.state, compared_all=message.compared_all)


CODEC = Codec(encode, decode)


def _hit(message: pb.Hit) -> Hit:
    scores = message.scores
    return Hit(
        document_id=message.document_id,
        document_version=message.document_version,
        title=message.title,
        metadata=dict(message.metadata),
        chunk_index=message.chunk_index,
        text=message.text,
        start=message.start,
        end=message.end,
        tokens=message.tokens,
        score=message.score,
        dense=scores.dense if scores.HasField("dense") else None,
        dense_rank=scores.dense_rank if scores.HasField("dense_rank") else None,
        lexical=scores.lexical if scores.HasField("lexical") else None,
        lexical_rank=scores.lexical_rank if scores.HasField("lexical_rank") else None,
    )
