"""What the failures of a server of OpenAI's protocol mean to our callers.

Its own words never cross the wire: they may quote prompts, keys or addresses.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from quintet_generator.models import Query
from quintet_servicekit.errors import Reason, ServiceError

MAX_RETRY_AFTER = 3600.0
"""Longest pause, in seconds, that is passed on to callers."""

_TOO_LONG = re.compile(r"context[ _](?:length|size|window)", re.IGNORECASE)


def unavailable(model: str, what: str, retry_after: float | None = None) -> ServiceError:
    """Return DEPENDENCY_UNAVAILABLE: the model's server `what`."""
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"the server of {model} {what}",
        metadata={"dependency": model},
        retry_after=retry_after,
    )


def timed_out(model: str, what: str) -> ServiceError:
    """Return DEADLINE_EXCEEDED: the model's server `what`."""
    return ServiceError(
        Reason.DEADLINE_EXCEEDED, f"the server of {model} {what}", metadata={"hop": model}
    )


def of_status(
    status: int, headers: Mapping[str, str], body: bytes, model: str, query: Query
) -> ServiceError:
    """Return what a response of another status than 200 means. `body` is its beginning."""
    retry_after = _retry_after(headers.get("retry-after", ""))
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return ServiceError(
                Reason.OVERLOADED, f"the server of {model} is overloaded", retry_after=retry_after
            )
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return unavailable(model, "refused the key that is set")
        case HTTPStatus.NOT_FOUND:
            return ServiceError(
                Reason.MODEL_NOT_FOUND,
                f"the server of {model} does not have it",
                metadata={"model": model},
            )
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.GATEWAY_TIMEOUT:
            return timed_out(model, "took too long, it says")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _too_long(model)
    if status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return unavailable(model, f"answered with status {status}", retry_after)
    if _TOO_LONG.search(_message(body)):
        return _too_long(model)
    if query.features:
        # Whether these were the cause it does not say in a form to rely on.
        feature = ",".join(sorted(it.value for it in query.features))
        return ServiceError(
            Reason.UNSUPPORTED_BY_MODEL,
            f"the server of {model} refused a request with {feature} (status {status})",
            metadata={"model": model, "feature": feature},
        )
    return ServiceError(
        Reason.INVALID_FIELD, f"the server of {model} refused the request (status {status})"
    )


def _too_long(model: str) -> ServiceError:
    return ServiceError(
        Reason.INPUT_TOO_LONG,
        f"prompt and max_tokens are more than {model} takes, its server says",
        metadata={"unit": "tokens"},
    )


def _message(body: bytes) -> str:
    """Return code and message of an error body, in the forms that servers have for it."""
    try:
        value = json.loads(body)
        error = value.get("error", value)
        return " ".join(str(error.get(key, "")) for key in ("code", "type", "message"))
    except (ValueError, RecursionError, AttributeError):
        return ""


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if seconds == seconds else None
