"""What comes in with a call: its metadata and its requests, made sure of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from quintet_servicekit.errors import Reason, ServiceError

Metadata = Iterable[tuple[str, str | bytes]]


def check_size(metadata: Metadata, most: int) -> None:
    """Raise `ServiceError` INPUT_TOO_LONG for more than `most` bytes of metadata."""
    size = sum(len(key) + len(value) for key, value in metadata)
    if size > most:
        raise ServiceError(
            Reason.INPUT_TOO_LONG,
            "the call carries too much metadata",
            metadata={"limit": str(most), "actual": str(size), "unit": "bytes"},
        )


class _Malformed:
    """Stands for a request that could not be parsed."""


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return a deserializer that never raises: gRPC would end the call as
    INTERNAL for text that is not UTF-8, which is the caller's fault."""

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except Exception:
            return _Malformed()

    return parse


def checked(request: Any) -> Any:
    """Return the request, or the stream of requests, raising for a malformed one."""
    if isinstance(request, _Malformed):
        raise ServiceError(
            Reason.INVALID_FIELD,
            "the request is not a valid message, or a text in it is not valid UTF-8",
        )
    if hasattr(request, "__aiter__"):
        return _checked_stream(request)
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield checked(request)
