"""Documents that are brought in while processes are killed, and what each may be afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from quintet.gateway.v1 import gateway_service_pb2 as pb

_WORDS = (
    "harbour lantern orchard thimble glacier saffron anvil meadow cathedral pepper walrus"
    " compass velvet trumpet canyon sparrow marble kettle lagoon biscuit ember falcon"
).split()
_SENTENCES = (2, 24)
"""Of a document, at least and at most: one to some six chunks."""


@dataclass(frozen=True, slots=True)
class Text:
    """What one write sends: `marker` is a word of each sentence, and of no other write."""

    marker: str
    content: str

    @classmethod
    def of(cls, number: int, rng: random.Random) -> Text:
        """Return the text of the write of that number."""
        marker = f"mark{number:06d}"
        sentences = (
            f"In {marker} the {' and the '.join(rng.sample(_WORDS, 4))} stand side by side."
            for _ in range(rng.randint(*_SENTENCES))
        )
        return cls(marker, " ".join(sentences))


@dataclass(eq=False)
class Shelved:
    """A document. `may_be` is all that it may be now; None: not there."""

    collection: str
    id: str
    may_be: list[Text | None] = field(default_factory=lambda: [None])

    @property
    def is_known(self) -> bool:
        """Whether it is there, and in which state."""
        return len(self.may_be) == 1 and self.may_be[0] is not None

    def send(self, text: Text) -> pb.IngestRequest:
        """Return what writes that text."""
        self.may_be.append(text)
        document = pb.Document(id=self.id, content=text.content)
        return pb.IngestRequest(collection=self.collection, document=document)


class Shelf:
    """All documents of a run, in so many collections."""

    def __init__(self, collections: Sequence[str], rng: random.Random) -> None:
        self.collections = collections
        self.documents: list[Shelved] = []
        self.acknowledgements = 0
        self._rng = rng
        self._written = 0
        self._moved = asyncio.Event()

    def acknowledge(self, document: Shelved) -> None:
        """Take down that a document's last write was acknowledged."""
        document.may_be = [document.may_be[-1]]
        self.acknowledgements += 1
        self._moved.set()

    async def acknowledged(self, seconds: float) -> None:
        """Wait for an acknowledgement, no longer than that."""
        self._moved.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)

    def text(self) -> Text:
        """Return a text that was never sent."""
        self._written += 1
        return Text.of(self._written, self._rng)

    def new(self) -> Shelved:
        """Return a document that is not there."""
        name = self._rng.choice(self.collections)
        self.documents.append(Shelved(name, f"document-{len(self.documents)}"))
        return self.documents[-1]

    def known(self) -> Shelved | None:
        """Return a document whose state is known, if there is one among some."""
        some = self._rng.choices(self.documents, k=8) if self.documents else []
        return next((it for it in some if it.is_known), None)
