"""Ports of the loopback interface, always asked of the system."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that is free now.

    Somebody else may take it before it is used: for programs that cannot share
    a reserved port, and whose start is tried again.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class ReservedPort:
    """A port that stays ours until `close`, however often its server restarts.

    The socket is bound, never listening, so it gets no connection; servers of
    the same user that set SO_REUSEPORT (gRPC's and our metrics server do) can
    bind the same port, and nobody else can. 0 asks the system for a port.

    Raises `OSError` when the port is taken.
    """

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind((HOST, number))
        except OSError:
            self._socket.close()
            raise
        self.number = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()
