"""What is told about one generation: its span and its time to the first token.

Names are those of OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanKind
from prometheus_client import Counter, Histogram

from quintet_generator.models import Finished, ModelInfo, Query
from quintet_generator.prompts import PromptTemplate
from quintet_servicekit import attributes, telemetry
from quintet_servicekit.spans import note_failure

MOST_CONTENT_CHARS = 20_000
"""Of each text that a span holds where it may: the longest passage."""

_FIRST_TOKEN_SECONDS = Histogram(
    "quintet_generator_time_to_first_token_seconds",
    "Time from a call's start to the first piece of its answer, waiting included.",
    ("model",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

_TOKENS = Counter(
    "quintet_generator_tokens_total",
    "Tokens of prompts that were read and of completions that were made, by kind; what is "
    "served from a cache is not counted.",
    ("model", "kind"),
)

ANSWERS = Counter(
    "quintet_generator_answers_total",
    "Answers that were completed, kept ones included, by model and prompt template.",
    ("model", "template"),
)


class Observation:
    """Takes what happens in one generation."""

    def __init__(self, span: Span, model: str) -> None:
        self._span = span
        self._model = model
        self._began = time.perf_counter()
        self._has_text = False
        self._content: list[str] | None = [] if telemetry.traces_content() else None
        self._room = MOST_CONTENT_CHARS

    def text(self, text: str) -> None:
        """Note a piece of the answer."""
        if self._content is not None and self._room > 0:
            self._content.append(text)
            self._room -= len(text)
        if not self._has_text:
            self._has_text = True
            seconds = time.perf_counter() - self._began
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
            _FIRST_TOKEN_SECONDS.labels(self._model).observe(
                seconds, telemetry.exemplar_of(self._span)
            )

    def finished(self, finished: Finished) -> None:
        """Note the end of the answer."""
        _TOKENS.labels(self._model, "prompt").inc(finished.prompt_tokens)
        _TOKENS.labels(self._model, "completion").inc(finished.completion_tokens)
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": finished.prompt_tokens,
                "gen_ai.usage.output_tokens": finished.completion_tokens,
                "gen_ai.response.finish_reasons": [finished.reason.value],
            }
        )
        if self._content is not None:
            said = _message("assistant", ["".join(self._content)])
            said["finish_reason"] = finished.reason.value
            self._span.set_attribute("gen_ai.output.messages", json.dumps([said]))


@contextmanager
def generation(
    operation: str, model: ModelInfo, query: Query, template: PromptTemplate
) -> Iterator[Observation]:
    """Yield what observes a generation. Its span ends with the block, in whatever way.

    The span is not made current: the block stands in an asynchronous generator,
    whose context is its consumer's.
    """
    # A model of another server is a dependency; one of this process is work.
    remote = model.backend == "openai"
    span = telemetry.tracer().start_span(
        f"{operation} {model.name}",
        kind=SpanKind.CLIENT if remote else SpanKind.INTERNAL,
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "openai" if remote else f"quintet.{model.backend}",
            "gen_ai.request.model": query.model or model.name,
            "gen_ai.request.max_tokens": query.max_tokens,
            "gen_ai.request.temperature": query.temperature,
            "gen_ai.response.model": model.name,
            "gen_ai.output.type": "json" if query.json_schema else "text",
            "gen_ai.prompt.name": f"{template.name}/{template.version}",
            attributes.TEMPLATE_REVISION: template.revision,
        },
    )
    if query.seed is not None:
        span.set_attribute("gen_ai.request.seed", query.seed)
    if telemetry.traces_content():
        asked = _message("user", [*(it.text for it in query.passages), query.question])
        span.set_attribute("gen_ai.input.messages", json.dumps([asked]))
    try:
        yield Observation(span, model.name)
    except BaseException as error:
        note_failure(span, error)
        raise
    finally:
        span.end()


def _message(role: str, texts: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "text", "content": it[:MOST_CONTENT_CHARS]} for it in texts]
    return {"role": role, "parts": parts}
