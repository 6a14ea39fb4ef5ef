"""An answer whole and an answer as a stream of events, and the way between the two."""

from __future__ import annotations

from collections.abc import Iterator

from quintet.gateway.v1 import gateway_service_pb2 as pb


class Collector:
    """Collects the events of a stream into the answer that they make up."""

    def __init__(self) -> None:
        self.response = pb.AskResponse()
        self._text: list[str] = []

    def add(self, event: pb.AskStreamResponse) -> None:
        """Take in the next event; with the last one `response` is whole."""
        kind = event.WhichOneof("event")
        if kind == "text_delta":
            self._text.append(event.text_delta.text)
        elif kind == "citation":
            self.response.citations.append(event.citation)
        elif kind == "sentence":
            self.response.sentences.append(event.sentence)
        elif kind == "passages_found":
            self.response.passages.extend(event.passages_found.passages)
        else:
            completed = event.completed
            self.response.answer = "".join(self._text)
            self.response.model = completed.model
            self.response.finish_reason = completed.finish_reason
            self.response.usage.CopyFrom(completed.usage)
            self.response.trail.CopyFrom(completed.trail)
            self.response.cache.CopyFrom(completed.cache)
            self.response.consistency_token = completed.consistency_token
            self.response.model_revision = completed.model_revision
            self.response.prompt_revision = completed.prompt_revision
            self.response.degradations.extend(completed.degradations)
            self.response.dropped_sentences = completed.dropped_sentences
            self.response.removed_loads = completed.removed_loads
            self.response.resolved_question = completed.resolved_question
            self.response.bill.CopyFrom(completed.bill)
            self.response.answer_id = completed.answer_id
            self.response.prompt_hash = completed.prompt_hash
            self.response.template = completed.template
            self.response.template_revision = completed.template_revision
            if completed.HasField("abstention"):
                self.response.abstention.CopyFrom(completed.abstention)
            if completed.HasField("routing"):
                self.response.routing.CopyFrom(completed.routing)


def events_of(response: pb.AskResponse) -> Iterator[pb.AskStreamResponse]:
    """Yield the events that make up an answer, its text in one piece."""
    yield pb.AskStreamResponse(passages_found=pb.PassagesFound(passages=response.passages))
    if response.answer:
        yield pb.AskStreamResponse(text_delta=pb.TextDelta(text=response.answer))
    for citation in response.citations:
        yield pb.AskStreamResponse(citation=citation)
    for sentence in response.sentences:
        yield pb.AskStreamResponse(sentence=sentence)
    yield pb.AskStreamResponse(
        completed=pb.Completed(
            model=response.model,
            finish_reason=response.finish_reason,
            usage=response.usage,
            trail=response.trail,
            cache=response.cache,
            consistency_token=response.consistency_token,
            model_revision=response.model_revision,
            prompt_revision=response.prompt_revision,
            degradations=response.degradations,
            dropped_sentences=response.dropped_sentences,
            removed_loads=response.removed_loads,
            resolved_question=response.resolved_question,
            bill=response.bill,
            answer_id=response.answer_id,
            prompt_hash=response.prompt_hash,
            abstention=response.abstention if response.HasField("abstention") else None,
            template=response.template,
            template_revision=response.template_revision,
            routing=response.routing if response.HasField("routing") else None,
        )
    )
