"""The callers of the matrix: four RPCs, new and again, each with a deadline, each judged.

They read a collection that nobody writes to, whose every passage and answer is known, and
write to another, of which each acknowledged document is looked at afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import grpc
from support.gateway import reason

from chaos.documents import SHELVES, TOPICS, UNWRITTEN, Question, Version
from chaos.heartbeat import Heartbeat
from chaos.invariants import Answer, Call, faults
from chaos.ledger import NOTHING, Ledger
from chaos.readers import answer_of, ask_request, collected, hits_of, search_request
from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

DEADLINES = (0.8, 1.2, 2.0)
"""Seconds that callers give, in turn."""
WAIT = 20.0
"""Deadline of what only prepares or looks."""
RPCS = ("Ask", "AskStream", "Search", "Ingest")
NEW, AGAIN = "new", "again"
"""Whether a question, or a document, was sent before."""
KINDS = tuple((rpc, which) for rpc in RPCS for which in (NEW, AGAIN))
ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a caller saw of one call. `outcome` is ANSWERED, what was served instead with
    "+" between ("TOKEN_ESTIMATE"), or the failure's reason; `late` is by how much it
    outlived its deadline, in seconds, and `own` how much of that this process itself was
    late; `wrong` is what is not true of a success."""

    rpc: str
    which: str
    began: float
    ended: float
    outcome: str
    failed: bool
    late: float
    own: float
    wrong: Sequence[str] = ()

    @property
    def is_good(self) -> bool:
        """Whether it was answered, and nothing is flagged."""
        return self.outcome == ANSWERED

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Callers:
    """Callers of a gateway; `prepare` first."""

    def __init__(self, stub: Any, beats: Heartbeat, suffix: str) -> None:
        self._stub = stub
        self._beats = beats
        self._ledger = Ledger(f"read-{suffix}")
        self._written = f"write-{suffix}"
        self._numbers = count()
        self._markers = (f"mark{number:06d}" for number in count())
        self.acknowledged: dict[str, str] = {}
        """Contents of documents that were acknowledged, by identifier."""
        self.unacknowledged: dict[str, str] = {}
        """Those of documents that were sent, and not acknowledged."""
        self._again = self._document("again")

    def _document(self, name: str) -> pb.Document:
        return Version(name, "cellar", SHELVES[0], next(self._markers)).message

    async def prepare(self) -> None:
        """Make the collections, and the documents that are asked about."""
        for name in (self._ledger.name, self._written):
            request = pb.CreateCollectionRequest(name=name)
            await self._stub.CreateCollection(request, timeout=WAIT)
        for topic in TOPICS:
            for shelf in SHELVES:
                version = Version(f"{topic}-{shelf}", topic, shelf, next(self._markers))
                now = time.monotonic()
                write = self._ledger.begin(version.document, version, "gateway", now)
                ingested = await self._ingest(self._ledger.name, version.message, WAIT)
                token = ingested.ingested.consistency_token
                self._ledger.acknowledge(token, "gateway", time.monotonic(), write)
        await self._ingest(self._written, self._again, WAIT)

    async def call(self, rpc: str, which: str, seconds: float) -> Seen:
        """Make a call with that deadline."""
        number = next(self._numbers)
        wrong: Sequence[str] = ()
        failed = False
        began = time.monotonic()
        try:
            if rpc == "Ingest":
                outcome, wrong = await self._send(which, number, seconds)
                failed = outcome != ANSWERED
            else:
                outcome, wrong = await self._ask(rpc, which, number, seconds)
        except grpc.aio.AioRpcError as error:
            outcome, failed = _failure(error), True
        ended = time.monotonic()
        due = began + seconds
        late = max(0.0, ended - due)
        own = min(late, self._beats.late(due, ended)) if late else 0.0
        return Seen(rpc, which, began, ended, outcome, failed, late, own, wrong)

    async def _ask(
        self, rpc: str, which: str, number: int, seconds: float
    ) -> tuple[str, Sequence[str]]:
        topic = TOPICS[number % len(TOPICS)]
        asked = f"What is said of the keeper of the {topic}?"
        if which == NEW:
            asked += f" Visitor {number} asks."
        question = Question(asked, retriever_pb.SEARCH_MODE_HYBRID, 5, topic)
        ledger, least = self._ledger, self._ledger.acknowledged()
        call = Call(question, rpc, "gateway", "minimize_latency", time.monotonic(), least, least)
        if rpc == "Search":
            found = await self._stub.Search(search_request(ledger, question), timeout=seconds)
            return self._judged(found, hits_of(ledger, call, found))
        request = ask_request(ledger, question)
        # Documents do not say who asks; that is no reason to leave the generator out.
        request.abstain_below = 0
        if rpc == "Ask":
            response = await self._stub.Ask(request, timeout=seconds)
        else:
            response = await collected(self._stub.AskStream(request, timeout=seconds))
        outcome, wrong = self._judged(response, answer_of(ledger, call, response))
        told = [it.marker for it in ledger.versions.values() if it.topic == topic]
        if outcome == ANSWERED and not any(marker in response.answer for marker in told):
            wrong = [*wrong, f"the answer does not tell: {response.answer!r}"]
        return outcome, wrong

    def _judged(self, response: Any, answer: Answer) -> tuple[str, Sequence[str]]:
        if not response.degradations:
            return ANSWERED, list(faults(self._ledger, answer))
        # It may lack passages, and may have none that are not true.
        question = replace(answer.call.question, topic=UNWRITTEN)
        call = replace(answer.call, question=question, least=NOTHING, least_kept=NOTHING)
        outcome = "+".join(
            dict.fromkeys(
                pb.Substitute.Name(it.substitute).removeprefix("SUBSTITUTE_")
                for it in response.degradations
            )
        )
        return outcome, list(faults(self._ledger, replace(answer, call=call)))

    async def _send(self, which: str, number: int, seconds: float) -> tuple[str, Sequence[str]]:
        document = self._again if which == AGAIN else self._document(f"new-{number}")
        if which == NEW:
            self.unacknowledged[document.id] = document.content
        response = await self._ingest(self._written, document, seconds)
        if response is None:
            return "no acknowledgement", ["the stream ended well without an acknowledgement"]
        if response.HasField("refused"):
            name = ErrorReason.Name(response.refused.reason)
            return name.removeprefix("ERROR_REASON_"), ()
        if which == NEW:
            self.acknowledged[document.id] = self.unacknowledged.pop(document.id)
        elif response.ingested.outcome != pb.INGEST_OUTCOME_UNCHANGED:
            return ANSWERED, ["a document that stood there was written"]
        return ANSWERED, ()

    async def _ingest(self, collection: str, document: pb.Document, seconds: float) -> Any:
        request = pb.IngestRequest(collection=collection, document=document)
        responses = [it async for it in self._stub.Ingest(iter([request]), timeout=seconds)]
        return responses[0] if responses else None

    async def look(self) -> list[str]:
        """Return what is not as it has to be of the documents that were sent since the
        last look: each is whole, or was not acknowledged and is absent."""
        wrong: list[str] = []
        for sent, is_there in ((self.acknowledged, True), (self.unacknowledged, False)):
            for document, content in sent.items():
                request = pb.GetDocumentRequest(
                    collection=self._written, id=document, include_content=True
                )
                try:
                    found = await self._stub.GetDocument(request, timeout=WAIT)
                except grpc.aio.AioRpcError as error:
                    if is_there or _failure(error) != "DOCUMENT_NOT_FOUND":
                        wrong.append(f"{document}: {_failure(error)}")
                    continue
                if found.document.content != content:
                    wrong.append(f"{document} is not whole")
            sent.clear()
        return wrong


def _failure(error: grpc.aio.AioRpcError) -> str:
    """Return a failure's reason; gRPC's own code, where it has none."""
    try:
        return reason(error)
    except KeyError:
        return str(error.code().name)
