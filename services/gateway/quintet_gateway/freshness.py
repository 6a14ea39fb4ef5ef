"""What the gateway knows of collections' epochs, and how fresh a request wants to be."""

from __future__ import annotations

from dataclasses import dataclass

from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_servicekit.consistency import Epoch, decode_token, encode_token
from quintet_servicekit.epochs import EpochWatch, Mark


@dataclass(frozen=True, slots=True)
class Need:
    """How fresh a request wants to be: as the database is now (`present`), at least as
    `epoch`, or as fresh as is known here (neither).

    `promised` is an epoch that others who share its answer count on, whatever is still
    known here when it is made.
    """

    present: bool = False
    epoch: Epoch | None = None
    promised: Epoch | None = None

    @property
    def weak(self) -> bool:
        """Whether what may be stale may be served, marked."""
        return not self.present and self.epoch is None

    def met_by(self, epoch: Epoch, known: Epoch | None) -> bool:
        """Whether a result that holds at `epoch` may be served without asking the
        database, where `known` is the present epoch as far as that is certain."""
        if self.present or known is None or epoch != known:
            return False
        return self.epoch is None or epoch >= self.epoch


class Freshness:
    """Compares what is kept with what is known."""

    def __init__(self, watch: EpochWatch) -> None:
        self._watch = watch

    def need(self, collection: str, consistency: retriever_pb.Consistency) -> Need:
        """Return what a request of `consistency` needs.

        Raises `ServiceError` INVALID_FIELD for a token that is none of the collection's.
        """
        if consistency.fully_consistent:
            return Need(present=True)
        if consistency.WhichOneof("requirement") == "at_least_as_fresh":
            return Need(epoch=decode_token(collection, consistency.at_least_as_fresh))
        return Need()

    def known(self, collection: str) -> Epoch | None:
        """Return the collection's present epoch where it is certain without asking."""
        return self._watch.known(collection)

    def demand(self, collection: str, need: Need) -> retriever_pb.Consistency:
        """Return the consistency to ask the retriever for, whose own knowledge may lag
        behind ours."""
        if need.present:
            return retriever_pb.Consistency(fully_consistent=True)
        known = self.known(collection)
        least = max(filter(None, (need.epoch, need.promised, known)), default=None)
        if least is None:
            return retriever_pb.Consistency(minimize_latency=True)
        return retriever_pb.Consistency(at_least_as_fresh=encode_token(collection, least))

    def mark(self) -> Mark | None:
        """Return a mark for `note`, taken before a call."""
        return self._watch.mark()

    def note(self, collection: str, token: str, mark: Mark | None) -> None:
        """Take in the token of a response that came from the database, and whose call
        began after `mark`."""
        if token:
            self._watch.note(collection, decode_token(collection, token), mark)

    def wrote(self, collection: str, token: str, mark: Mark | None, request_id: str) -> None:
        """Take in the token of a write whose call began after `mark`; `request_id` is its
        caller's own, empty where we made one.

        The caller may have sent it before: the token is then of that time, and proves
        nothing of the present.
        """
        if request_id:
            self._watch.told(collection, decode_token(collection, token))
        else:
            self.note(collection, token, mark)
