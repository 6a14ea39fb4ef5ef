"""How fresh a read must be, and which of several writes' tokens is the newest."""

from __future__ import annotations

from quintet.retriever.v1.retriever_service_pb2 import Consistency
from quintet_cli.errors import CliError
from quintet_servicekit.consistency import Epoch, decode_token
from quintet_servicekit.errors import ServiceError


def required(*, fresh: bool, after: str | None) -> Consistency | None:
    """Return what `--fresh` and `--after` demand, or None without either.

    Raises `CliError` (usage) for both at once and for an empty token.
    """
    if fresh and after is not None:
        raise CliError(
            "--fresh and --after exclude each other",
            advice="--fresh alone includes every write",
            usage=True,
        )
    if fresh:
        return Consistency(fully_consistent=True)
    if after is None:
        return None
    if not after:
        raise CliError(
            "--after needs a consistency token", advice="each write prints its own", usage=True
        )
    return Consistency(at_least_as_fresh=after)


class Newest:
    """The newest of the tokens of writes to one collection, whose acknowledgements
    need not come in the order of the writes."""

    def __init__(self, collection: str) -> None:
        self._collection = collection
        self._epoch: Epoch | None = None
        self.token = ""
        """"" before the first."""

    def add(self, token: str) -> None:
        """Take note of a token; "" is none."""
        if not token:
            return
        try:
            epoch = decode_token(self._collection, token)
        except ServiceError:
            # A later version's form: that of the last acknowledgement is the best guess.
            self._epoch, self.token = None, token
            return
        if self._epoch is None or epoch >= self._epoch:
            self._epoch, self.token = epoch, token
