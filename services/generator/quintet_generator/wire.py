"""Answers as the contract's messages, and back: for callers, for Redis, and for replicas
that follow each other's streams."""

from __future__ import annotations

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet_generator.models import (
    Citation,
    Completed,
    Completion,
    Event,
    Finished,
    FinishReason,
    Generation,
    TextDelta,
    TokenLogprob,
)
from quintet_servicekit.cache import Codec
from quintet_servicekit.cache_service import use_message

_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}
_REASONS = {number: reason for reason, number in _FINISH_REASONS.items()}


def response(generation: Generation) -> pb.GenerateResponse:
    """Return a whole answer's message."""
    completed = _completed(generation.completed)
    return pb.GenerateResponse(
        text=generation.text,
        model=completed.model,
        revision=completed.revision,
        finish_reason=completed.finish_reason,
        usage=completed.usage,
        citations=[_citation(it) for it in generation.citations],
        logprobs=completed.logprobs,
        cache=completed.cache if completed.HasField("cache") else None,
        template=completed.template,
        template_revision=completed.template_revision,
    )


def stream_response(event: TextDelta | Citation | Completed) -> pb.GenerateStreamResponse:
    """Return the message of one event of a stream."""
    match event:
        case TextDelta():
            return pb.GenerateStreamResponse(text_delta=pb.TextDelta(text=event.text))
        case Citation():
            return pb.GenerateStreamResponse(citation=_citation(event))
        case Completed():
            return pb.GenerateStreamResponse(completed=_completed(event))


def encode_completion(completion: Completion) -> bytes:
    """Return the binary form of an answer that is kept: a GenerateResponse without what
    its key tells, the model."""
    finished = _finished(completion.finished)
    return pb.GenerateResponse(
        text=completion.text,
        finish_reason=finished.finish_reason,
        usage=finished.usage,
        citations=[_citation(it) for it in completion.citations],
        logprobs=finished.logprobs,
    ).SerializeToString()


def decode_completion(raw: bytes) -> Completion:
    """Return the answer of a binary form. Raises for anything else."""
    message = pb.GenerateResponse.FromString(raw)
    citations = tuple(_citation_of(it) for it in message.citations)
    return Completion(message.text, citations, _finished_of(message))


def encode_event(event: Event) -> bytes:
    """Return the binary form of what a backend yields: a GenerateStreamResponse."""
    match event:
        case Finished():
            return pb.GenerateStreamResponse(completed=_finished(event)).SerializeToString()
        case _:
            return stream_response(event).SerializeToString()


def decode_event(raw: bytes) -> Event:
    """Return the event of a binary form. Raises for anything else."""
    message = pb.GenerateStreamResponse.FromString(raw)
    match message.WhichOneof("event"):
        case "text_delta":
            return TextDelta(message.text_delta.text)
        case "citation":
            return _citation_of(message.citation)
        case "completed":
            return _finished_of(message.completed)
    raise ValueError("no event")


COMPLETIONS = Codec(encode_completion, decode_completion)
EVENTS = Codec(encode_event, decode_event)
SCHEMA = 1
"""Raised with every change of what the two write that is not an added field."""


def _completed(completed: Completed) -> pb.Completed:
    message = _finished(completed.finished)
    message.model = completed.model.name
    message.revision = completed.model.revision
    message.prompt_revision = completed.model.prompt_revision
    message.template = completed.template
    message.template_revision = completed.template_revision
    if completed.cache is not None:
        message.cache.CopyFrom(use_message(completed.cache))
    return message


def _finished(finished: Finished) -> pb.Completed:
    return pb.Completed(
        finish_reason=_FINISH_REASONS[finished.reason],
        usage=pb.Usage(
            prompt_tokens=finished.prompt_tokens,
            completion_tokens=finished.completion_tokens,
            estimated=finished.is_estimate,
            cached_prompt_tokens=finished.cached_prompt_tokens,
        ),
        logprobs=[pb.TokenLogprob(token=it.text, logprob=it.logprob) for it in finished.logprobs],
    )


def _finished_of(message: pb.Completed | pb.GenerateResponse) -> Finished:
    return Finished(
        _REASONS[message.finish_reason],
        prompt_tokens=message.usage.prompt_tokens,
        completion_tokens=message.usage.completion_tokens,
        is_estimate=message.usage.estimated,
        logprobs=tuple(TokenLogprob(it.token, it.logprob) for it in message.logprobs),
        cached_prompt_tokens=message.usage.cached_prompt_tokens,
    )


def _citation(citation: Citation) -> pb.Citation:
    return pb.Citation(
        passage_index=citation.passage_index,
        answer_start=citation.answer_start,
        answer_end=citation.answer_end,
        passage_start=citation.passage_start,
        passage_end=citation.passage_end,
        support=citation.support,
    )


def _citation_of(message: pb.Citation) -> Citation:
    return Citation(
        message.passage_index,
        message.answer_start,
        message.answer_end,
        message.passage_start,
        message.passage_end,
        message.support,
    )
