"""Makes the record of an answer of what its caller was told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.records.entry import Entry, milliseconds_of

_Detail = Literal["sentences", "passages", "answer", "resolved_question", "request", "degradations"]
_DETAILS: Sequence[_Detail] = (
    "sentences",
    "passages",
    "answer",
    "resolved_question",
    "request",
    "degradations",
)
"""What a record that is too large lacks, in this order and after the passages that were left
out of the prompt."""


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes records of at most `max_bytes`, with questions and answers only if `texts`.

    `default_passages` and the thresholds are the settings of the same names.
    """

    texts: bool
    max_bytes: int
    default_passages: int
    abstain_below: float
    min_citation_support: float
    duplicate_similarity: float
    semantic_similarity: float

    def record(self, entry: Entry) -> explain_pb.AnswerRecord:
        """Return the record of an answer."""
        response = entry.response
        request = self._pinned(entry.request)
        request.template = request.template or response.template
        record = explain_pb.AnswerRecord(
            answer_id=str(entry.id),
            key=entry.key,
            streamed=entry.streamed,
            request=request,
            failure=entry.failure,
            failed_at=entry.failed_at,
            sentences=response.sentences,
            thresholds=explain_pb.Thresholds(
                abstain_below=request.abstain_below,
                min_citation_support=self.min_citation_support,
                duplicate_similarity=self.duplicate_similarity,
                semantic_similarity=self.semantic_similarity,
            ),
            model=response.model,
            model_revision=response.model_revision,
            prompt_revision=response.prompt_revision,
            prompt_hash=response.prompt_hash,
            embedding_model=entry.embedding_model,
            embedding_revision=entry.embedding_revision,
            degradations=response.degradations,
            finish_reason=response.finish_reason,
            dropped_sentences=response.dropped_sentences,
            removed_loads=response.removed_loads,
            template=response.template,
            template_revision=response.template_revision,
        )
        _add_passages(record, response)
        record.asked_at.FromMilliseconds(milliseconds_of(entry.id))
        for field in ("trail", "cache", "usage", "abstention", "bill", "routing"):
            if response.HasField(field):
                getattr(record, field).CopyFrom(getattr(response, field))
        if response.answer:
            record.answer_hash = hashlib.sha256(response.answer.encode()).hexdigest()
        if self.texts:
            record.answer = response.answer
            record.resolved_question = response.resolved_question
        else:
            record.cache.ClearField("question")
        return record

    def packed(self, entry: Entry) -> bytes:
        """Return the record of an answer as it is stored."""
        record = self.record(entry)
        data = record.SerializeToString()
        if len(data) > self.max_bytes:
            record.truncated = True
            record.trail.ClearField("left_out")
            data = record.SerializeToString()
        for field in _DETAILS:
            if len(data) <= self.max_bytes:
                break
            record.ClearField(field)
            data = record.SerializeToString()
        return data

    def _pinned(self, asked: pb.AskRequest) -> pb.AskRequest:
        request = pb.AskRequest()
        request.CopyFrom(asked)
        request.passages = request.passages or self.default_passages
        request.mode = request.mode or retriever_pb.SEARCH_MODE_HYBRID
        if not request.HasField("abstain_below"):
            request.abstain_below = self.abstain_below
        if not self.texts:
            request.ClearField("question")
            request.ClearField("turns")
            request.ClearField("trial_unit")
        return request


def _add_passages(record: explain_pb.AnswerRecord, response: pb.AskResponse) -> None:
    # Field by field: a third of what the constructor takes, and that for each passage.
    cited: dict[int, int] = {}
    for citation in response.citations:
        number = citation.passage
        cited[number] = cited.get(number, 0) + 1
    for passage in response.passages:
        it, hit = record.passages.add(), passage.hit
        it.number = passage.number
        it.document_id = hit.document_id
        it.document_version = hit.document_version
        it.chunk_index = hit.chunk_index
        it.tokens = hit.tokens
        it.score = hit.score
        it.scores.CopyFrom(hit.scores)
        it.citations = cited.get(passage.number, 0)
        it.linked = passage.HasField("link")
        if hit.merged_chunks:
            it.merged_chunks.extend(hit.merged_chunks)
        for span in passage.instructions:
            it.withheld += span.withheld
