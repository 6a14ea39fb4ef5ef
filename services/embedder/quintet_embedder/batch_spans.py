"""The span of a batch, which links to the spans of those whose texts are in it."""

from __future__ import annotations

from opentelemetry.trace import INVALID_SPAN, Link, Span, set_span_in_context

from quintet_embedder.scheduler import Batch
from quintet_servicekit import attributes, telemetry

MOST_LINKS = 32
"""Callers that a batch's span links to; how many there were it tells in any case."""


def batch_span(model: str, batch: Batch) -> Span:
    """Return the span of a batch; one that records nothing, at no cost, where none of its
    callers is recorded.

    It is in the trace of the first of them who is: a trace of its own would be kept or
    dropped apart from theirs. To the others, and from them, lead the links.
    """
    callers = list({id(job): job.caller for job, _ in batch.items}.values())
    recorded = [it for it in callers if it.is_recording()]
    if not recorded:
        return INVALID_SPAN
    linked = recorded[:MOST_LINKS]
    span = telemetry.tracer().start_span(
        f"batch {model}",
        set_span_in_context(recorded[0]),
        attributes={
            attributes.BATCH_TEXTS: len(batch.items),
            attributes.BATCH_TOKENS: sum(map(len, batch.ids)),
            attributes.BATCH_CALLERS: len(callers),
        },
        links=[Link(caller.get_span_context()) for caller in linked],
    )
    for caller in linked[1:]:
        caller.add_link(span.get_span_context())
    return span
