"""What was written to a collection, and what it may therefore hold at an epoch.

Every write has an epoch, which its acknowledgement tells: the writes of a collection are in
one order, and its state at an epoch is known. A write whose call failed may have happened,
and counts as both until a look into the database tells. A document has one writer, who
waits for that look before it writes the document again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.documents import Version
from quintet_servicekit.consistency import Epoch, decode_token
from quintet_servicekit.epochs import LEASE_SECONDS
from quintet_servicekit.identity import DEFAULT_TENANT, Identity, acting_as

NOTHING = Epoch(0, 0)
"""Before all writes."""
EXISTENCE = ""
"""Name of what is there as long as the collection is."""


@dataclass(eq=False, slots=True)
class Write:
    """A write of a document, or its deletion if `version` is None; times are monotonic.

    It is in no state up to the epoch `after`, which was known before it began. If it
    `happened` (None: nobody knows) it is in those from `epoch` on.
    """

    document: str
    version: Version | None
    by: str
    began: float
    after: Epoch
    epoch: Epoch | None = None
    happened: bool | None = None

    def __str__(self) -> str:
        what = self.version.marker if self.version else "deleted"
        when = {None: "unknown", False: "did not happen"}.get(self.happened, str(self.epoch))
        return f"{self.began:.3f} {self.document} {what} by the {self.by}: {when}"


@dataclass(frozen=True, slots=True)
class _Acknowledgement:
    time: float
    epoch: Epoch
    by: str


class Ledger:
    """The writes of the collection that a tenant has by a name."""

    def __init__(self, name: str, tenant: str = DEFAULT_TENANT) -> None:
        self.name = name
        self.tenant = tenant
        self.latest = NOTHING
        """The latest epoch that anybody was told."""
        self.versions: dict[str, Version] = {}
        """All versions that were ever sent, by marker."""
        self.tokens: list[str] = []
        """All tokens that acknowledgements had."""
        self._writes: defaultdict[str, list[Write]] = defaultdict(list)
        self._open: set[Write] = set()
        self._acknowledged: list[_Acknowledgement] = []
        self._reached: list[Epoch] = []
        self._outdated: list[tuple[Epoch, float]] = []

    @property
    def documents(self) -> Sequence[str]:
        """Identifiers of all documents that were ever written."""
        return [it for it in self._writes if it != EXISTENCE]

    def begin(self, document: str, version: Version | None, by: str, now: float) -> Write:
        """Take down that a write is about to be sent."""
        write = Write(document, version, by, now, after=self.latest)
        self._writes[document].append(write)
        self._open.add(write)
        if version:
            self.versions[version.marker] = version
        return write

    def acknowledge(self, token: str, by: str, now: float, *writes: Write) -> None:
        """Take down that writes, perhaps none of a document, were acknowledged."""
        epoch = self.learn(token)
        for write in writes:
            write.happened, write.epoch = True, epoch
            self._open.discard(write)
        self.tokens.append(token)
        self._acknowledged.append(_Acknowledgement(now, epoch, by))
        reached = self._reached[-1] if self._reached else NOTHING
        self._reached.append(max(reached, epoch))

    def settle(self, token: str, happened: bool, *writes: Write) -> None:
        """Take down what the database, at the epoch of the token, told of writes that were
        not acknowledged."""
        epoch = self.learn(token) if token else self.latest
        for write in writes:
            write.happened, write.epoch = happened, epoch
            self._open.discard(write)

    def declare_outdated(self, token: str, began: float) -> None:
        """Take down that what was made before then was declared out of date."""
        self._outdated.append((self.learn(token), began))

    def outdated_until(self, epoch: Epoch) -> float:
        """Return the moment before which nothing may have been made that is served at an
        epoch."""
        return max((began for at, began in self._outdated if at <= epoch), default=-math.inf)

    def learn(self, token: str) -> Epoch:
        """Return a token's epoch, which the collection has reached."""
        with acting_as(Identity(self.tenant)):
            epoch = decode_token(self.name, token)
        self.latest = max(self.latest, epoch)
        return epoch

    @property
    def settled_until(self) -> float:
        """Moment up to which it is known of all writes what became of them."""
        return min((write.began for write in self._open), default=math.inf)

    def possible(self, document: str, epoch: Epoch) -> set[Version | None]:
        """Return what a document may be at an epoch; None: not there."""
        found: set[Version | None] = set()
        for write in reversed(self._writes[document]):
            if write.happened is False or epoch <= write.after:
                continue
            found.add(write.version)
            if write.epoch is not None and write.epoch <= epoch:
                return found
        return found | {None}

    def epochs(self, least: Epoch, until: float) -> Iterator[Epoch]:
        """Yield `least` and the epochs after it at which documents changed by writes that
        began before then."""
        yield least
        for writes in list(self._writes.values()):
            for write in writes:
                if write.began < until and write.epoch is not None and write.epoch > least:
                    yield write.epoch

    def acknowledged(self) -> Epoch:
        """Return the latest epoch that was acknowledged to a writer."""
        return self._reached[-1] if self._reached else NOTHING

    def told(self, by: str, now: float) -> Epoch:
        """Return the latest epoch that must be known to the replica called `by` at that
        time: of what it acknowledged itself, and of what others did a lease ago."""
        old = bisect_right(self._acknowledged, now - LEASE_SECONDS, key=lambda it: it.time)
        found = self._reached[old - 1] if old else NOTHING
        return max([found, *(it.epoch for it in self._acknowledged[old:] if it.by == by)])

    def lag(self, epoch: Epoch, now: float) -> float:
        """Return for how long, at that time, a write had been acknowledged that is not in
        the epoch: 0 if there is none."""
        missing = (it.time for it in self._acknowledged if it.epoch > epoch)
        return max(0.0, now - min(missing, default=now))

    def history(self, document: str, most: int = 12) -> list[str]:
        """Return the last writes of a document, for people."""
        return [str(write) for write in self._writes[document][-most:]]
