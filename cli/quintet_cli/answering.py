"""A question's way through AskStream: events as they come, and the whole at the end."""

from __future__ import annotations

from collections.abc import Callable

from quintet.gateway.v1.gateway_service_pb2 import AskRequest, AskResponse, AskStreamResponse
from quintet_cli.connection import Gateway
from quintet_cli.errors import CliError


async def answer(
    gateway: Gateway,
    request: AskRequest,
    on_event: Callable[[AskStreamResponse], None] = lambda _: None,
) -> AskResponse:
    """Ask, pass each event to `on_event`, and return all of them as `Ask` would.

    Raises `ServiceError` as the gateway does, and `CliError` for a stream that
    ended without its last event.
    """
    whole, completed = AskResponse(), False
    async for event in gateway.stream("AskStream", gateway.stub.AskStream, request):
        match event.WhichOneof("event"):
            case "passages_found":
                whole.passages.extend(event.passages_found.passages)
            case "text_delta":
                whole.answer += event.text_delta.text
            case "citation":
                whole.citations.append(event.citation)
            case "sentence":
                whole.sentences.append(event.sentence)
            case "completed":
                completed = True
                whole.model = event.completed.model
                whole.finish_reason = event.completed.finish_reason
                whole.usage.CopyFrom(event.completed.usage)
                whole.trail.CopyFrom(event.completed.trail)
                if event.completed.HasField("cache"):
                    whole.cache.CopyFrom(event.completed.cache)
                whole.consistency_token = event.completed.consistency_token
                whole.model_revision = event.completed.model_revision
                whole.prompt_revision = event.completed.prompt_revision
                whole.template = event.completed.template
                whole.template_revision = event.completed.template_revision
                whole.degradations.extend(event.completed.degradations)
                whole.dropped_sentences = event.completed.dropped_sentences
                whole.removed_loads = event.completed.removed_loads
                whole.resolved_question = event.completed.resolved_question
                whole.bill.CopyFrom(event.completed.bill)
                whole.answer_id = event.completed.answer_id
                whole.prompt_hash = event.completed.prompt_hash
                if event.completed.HasField("abstention"):
                    whole.abstention.CopyFrom(event.completed.abstention)
                if event.completed.HasField("routing"):
                    whole.routing.CopyFrom(event.completed.routing)
        on_event(event)
    if not completed:
        raise CliError("the answer ended before it was complete", advice="ask again")
    return whole


def quoted(response: AskResponse, citation: int) -> str:
    """Return the source text of a citation, by its index: the stretch of its
    document that it names, cut from the passage. "" if the passage isn't there."""
    cited = response.citations[citation]
    for passage in response.passages:
        if passage.number == cited.passage:
            offset = passage.hit.start
            text = passage.hit.text
            return text[max(0, cited.document_start - offset) : cited.document_end - offset]
    return ""
