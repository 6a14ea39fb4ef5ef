"""Puts chunks of a document that overlap or touch together into one passage.

The passage's text is the document's own, character by character: it is put together of
the chunks' texts alone, so chunks with a gap between them stay apart.
"""

from __future__ import annotations

from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb


def merged(
    better: retriever_pb.Hit, other: retriever_pb.Hit, max_tokens: int
) -> retriever_pb.Hit | None:
    """Return two hits as one, which is the better one but for its text, its place and
    its tokens; None where they are not neighbours or have more than `max_tokens`
    together."""
    if better.tokens + other.tokens > max_tokens or not _of_one_text(better, other):
        return None
    first, second = sorted((better, other), key=lambda hit: (hit.start, -hit.end))
    shared = first.end - second.start
    if (
        shared < 0
        or first.text[second.start - first.start :][: len(second.text)] != (second.text[:shared])
    ):
        return None
    whole = retriever_pb.Hit()
    whole.CopyFrom(better)
    whole.text = first.text + second.text[shared:]
    whole.start = first.start
    whole.end = max(first.end, second.end)
    whole.tokens = better.tokens + other.tokens
    whole.merged_chunks.extend((other.chunk_index, *other.merged_chunks))
    return whole


def _of_one_text(one: retriever_pb.Hit, other: retriever_pb.Hit) -> bool:
    same = (one.document_id, one.document_version) == (other.document_id, other.document_version)
    # Other clients of the retriever may store chunks that are no stretch of their document.
    return same and all(len(hit.text) == hit.end - hit.start for hit in (one, other))
