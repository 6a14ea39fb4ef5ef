"""What is told about one generation: its span and its time to the first token.

Names are those of OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, Status, StatusCode
from prometheus_client import Counter, Histogram

from quintet_generator.models import Finished, ModelInfo, Query
from quintet_servicekit import telemetry
from quintet_servicekit.errors import ServiceError

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


class Observation:
    """Takes what happens in one generation."""

    def __init__(self, span: Span, model: str) -> None:
        self._span = span
        self._model = model
        self._began = time.perf_counter()
        self._has_text = False

    def text(self) -> None:
        """Note a piece of the answer."""
        if not self._has_text:
            self._has_text = True
            _FIRST_TOKEN_SECONDS.labels(self._model).observe(
                time.perf_counter() - self._began, telemetry.exemplar_of(self._span)
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


@contextmanager
def generation(
    operation: str, model: ModelInfo, query: Query, template_version: int
) -> Iterator[Observation]:
    """Yield what observes a generation. Its span ends with the block, in whatever way.

    The span is not made current: the block stands in an asynchronous generator,
    whose context is its consumer's.
    """
    span = telemetry.tracer().start_span(
        f"{operation} {model.name}",
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": f"quintet.{model.backend}",
            "gen_ai.request.model": query.model or model.name,
            "gen_ai.request.max_tokens": query.max_tokens,
            "gen_ai.request.temperature": query.temperature,
            "gen_ai.response.model": model.name,
            "gen_ai.prompt.name": f"{query.template}/{template_version}",
        },
    )
    try:
        yield Observation(span, model.name)
    except (asyncio.CancelledError, GeneratorExit):
        # The caller's wish and no fault: named, and not an error.
        span.set_attribute("error.type", "CANCELLED")
        raise
    except Exception as error:
        name = error.reason.value if isinstance(error, ServiceError) else type(error).__name__
        span.set_attribute("error.type", name)
        span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        span.end()
