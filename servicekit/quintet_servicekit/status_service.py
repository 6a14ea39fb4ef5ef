"""The servicer of quintet.status.v1.StatusService, by which every service tells of its breakers.

Like `cache_service`, and for its reason (ADR 7), a part of the kit that knows a contract
of ours. A service registers it in its `app.py`, and names `SERVICE` among the
application's `more_services`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from quintet.status.v1 import status_service_pb2 as pb
from quintet.status.v1 import status_service_pb2_grpc as pb_grpc
from quintet_servicekit.breaker import Breaker, Snapshot, State
from quintet_servicekit.cache import Remote

SERVICE = pb.DESCRIPTOR.services_by_name["StatusService"].full_name

_STATES = {
    State.CLOSED: pb.BREAKER_STATE_CLOSED,
    State.OPEN: pb.BREAKER_STATE_OPEN,
    State.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
}


def register_status_service(
    server: grpc.aio.Server, breakers: Iterable[Breaker], remote: Remote | None
) -> None:
    """Let the server tell of `breakers` and of that of the process's Redis."""
    own = [] if remote is None else [remote.breaker]
    pb_grpc.add_StatusServiceServicer_to_server(StatusServicer([*breakers, *own]), server)


class StatusServicer(pb_grpc.StatusServiceServicer):
    """See the contract."""

    def __init__(self, breakers: Iterable[Breaker]) -> None:
        self._breakers = sorted(breakers, key=lambda it: it.name)

    async def ListBreakers(
        self, request: pb.ListBreakersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListBreakersResponse:
        """Tell of all; asks nobody."""
        return pb.ListBreakersResponse(
            breakers=[breaker_message(it.snapshot()) for it in self._breakers]
        )


def breaker_message(now: Snapshot) -> pb.Breaker:
    """Return the message that tells of a breaker."""
    message = pb.Breaker(
        dependency=now.name,
        state=_STATES[now.state],
        cause=now.cause,
        rejections=now.rejections,
        calls=now.calls,
        failure_rate=now.failure_rate,
        slow_rate=now.slow_rate,
    )
    message.in_state.FromNanoseconds(round(now.seconds_in_state * 1e9))
    if now.retry_after > 0:
        message.retry_after.FromNanoseconds(round(now.retry_after * 1e9))
    return message
