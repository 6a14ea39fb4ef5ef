"""Whether a prompt and its answer fit a model."""

from __future__ import annotations

from quintet_generator.models import Query
from quintet_servicekit.errors import Reason, ServiceError


def check_room(prompt_tokens: int, query: Query, context_tokens: int) -> None:
    """Raise `ServiceError` INPUT_TOO_LONG if the prompt leaves no room for `max_tokens`."""
    limit = max(context_tokens - query.max_tokens, 0)
    if prompt_tokens > limit:
        raise ServiceError(
            Reason.INPUT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens; with max_tokens of {query.max_tokens}"
            f" this model has room for {limit}",
            metadata={"limit": str(limit), "actual": str(prompt_tokens), "unit": "tokens"},
        )
