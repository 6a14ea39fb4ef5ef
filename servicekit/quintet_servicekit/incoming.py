"""What comes in with a call: its metadata and its requests, made sure of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.patience import Patience

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a call may bring, and how slow its caller may be: bytes of metadata; seconds until
    its first message, between the messages of a stream, and until a response is taken."""

    metadata_bytes: int = 8_192
    first_seconds: float = 30.0
    idle_seconds: float = 600.0
    taken_seconds: float = 60.0


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


class Patiences:
    """How long callers may be waited for; see `Bounds`."""

    def __init__(self, bounds: Bounds) -> None:
        self.first = Patience(bounds.first_seconds, "the request did not come in time")
        self.next = Patience(
            bounds.idle_seconds, "the next request of the stream did not come in time"
        )
        self.taken = Patience(bounds.taken_seconds, "the responses were not taken in time")


async def only(requests: AsyncIterator[Any], patience: Patience) -> Any:
    """Return the request of a call that has one.

    gRPC itself would wait for it without end, and count the call as one under way.
    """
    async with patience.bound():
        async for request in requests:
            return _checked(request)
    raise ServiceError(Reason.INVALID_FIELD, "the call was closed without a request")


async def each(requests: AsyncIterator[Any], patience: Patience) -> AsyncIterator[Any]:
    """Yield the requests of a stream. Only while the service waits for the next one does
    its caller's time run."""
    iterator = aiter(requests)
    while True:
        async with patience.bound():
            request = await anext(iterator, None)
        if request is None:
            return
        yield _checked(request)


def _checked(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise ServiceError(
            Reason.INVALID_FIELD,
            "the request is not a valid message, or a text in it is not valid UTF-8",
        )
    return request
