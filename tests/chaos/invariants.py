"""What must hold of every answer, whatever was killed while it was made.

a. An answer at `at_least_as_fresh(token)` is of the token's epoch or a later one.
b. A fully consistent one is of an epoch at or after each that anybody was told before the
   call began: writers by an acknowledgement, readers by an answer. So such answers do not
   go backwards either.
c. One that is served as fast as can be has at least what the same replica acknowledged,
   and what any other did a lease (1.5 s) before the call began. Only answers that a gateway
   keeps or shares may lack younger writes; what has come from the retriever may not, for
   all writes go through it. An answer that says that it may be stale is excepted here, and
   here only.
d. Its passages are the documents as they are at its epoch: none in an earlier version,
   none that was deleted, and none missing that the question must find.
e. Its text and its citations are of its passages.
f. It was not made before something that it had to know of declared it out of date.

`d` holds of answers that may be stale too: their epoch tells how old they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from chaos.documents import MARKER, Question, Version
from chaos.ledger import EXISTENCE, NOTHING, Ledger
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_servicekit.consistency import Epoch

Consistency = Literal["minimize_latency", "at_least_as_fresh", "fully_consistent"]


@dataclass(frozen=True, slots=True)
class Call:
    """A question that is asked: by which RPC, of which replica, when, and the epochs that
    its answer must be of: `least`, or `least_kept` where it may have been kept."""

    question: Question
    rpc: str
    replica: str
    consistency: Consistency
    began: float
    least: Epoch
    least_kept: Epoch


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `epoch` is None where the answer is an error that says nothing was
    found ("nothing") or that there is no such collection ("gone"); `kept`: whether the
    answer may have been kept by a gateway, as far as one can tell."""

    call: Call
    ended: float
    epoch: Epoch | None
    outcome: str
    kept: bool
    stale: bool = False
    passages: Sequence[tuple[str, str]] = ()
    """Identifiers of documents, and their chunks' texts."""
    text: str = ""
    citations: Sequence[pb.Citation] = ()
    age: float = 0.0
    """Seconds since it was made."""
    trace_id: str = ""

    @property
    def least(self) -> Epoch:
        """The earliest epoch that it may be of."""
        if self.stale:
            return NOTHING
        return self.call.least_kept if self.kept else self.call.least


def faults(ledger: Ledger, answer: Answer) -> Iterator[str]:
    """Yield what is wrong with an answer, once all writes are settled that began before
    it ended."""
    if answer.stale and answer.call.consistency != "minimize_latency":
        yield f"an answer that may be stale was served to {answer.call.consistency}"
    if answer.epoch is None:
        if not any(
            _can_be_without(ledger, answer, epoch)
            for epoch in ledger.epochs(answer.least, answer.ended)
        ):
            yield f"{answer.outcome}, though something is there since {answer.least}"
        return
    if answer.epoch < answer.least:
        yield f"it is of {answer.epoch}, and had to be of {answer.least} at least"
    if answer.ended - answer.age < ledger.outdated_until(answer.least):
        yield f"it was made {answer.age:.3f} s before and declared out of date since"
    yield from _wrong_passages(ledger, answer, answer.epoch)
    yield from _wrong_text(ledger, answer)


def _can_be_without(ledger: Ledger, answer: Answer, epoch: Epoch) -> bool:
    """Whether at an epoch there may be nothing that the question must find."""
    if answer.outcome == "gone":
        return None in ledger.possible(EXISTENCE, epoch)
    return not any(_must_be_found(ledger, answer, it, epoch) for it in ledger.documents)


def _must_be_found(ledger: Ledger, answer: Answer, document: str, epoch: Epoch) -> bool:
    wants = answer.call.question.wants
    return all(it is not None and wants(it) for it in ledger.possible(document, epoch))


def _wrong_passages(ledger: Ledger, answer: Answer, epoch: Epoch) -> Iterator[str]:
    for document, text in answer.passages:
        version = _version(ledger, text)
        if version is None or version.document != document or text not in version.content:
            yield f"a passage of {document} is of no version of it: {text!r}"
        elif version not in ledger.possible(document, epoch):
            yield f"a passage is of {version.marker} of {document}, which is not at {epoch}"
        elif not answer.call.question.admits(version):
            yield f"{version.marker} of {document} does not belong to the question"
    found = {document for document, _ in answer.passages}
    for document in ledger.documents:
        if document not in found and _must_be_found(ledger, answer, document, epoch):
            yield f"{document} is at {epoch} and not among the passages"


def _wrong_text(ledger: Ledger, answer: Answer) -> Iterator[str]:
    markers = {marker for _, text in answer.passages for marker in MARKER.findall(text)}
    for marker in MARKER.findall(answer.text):
        if marker not in markers:
            yield f"the answer is of {marker}, which none of its passages is of"
    for citation in answer.citations:
        if not 0 < citation.passage <= len(answer.passages):
            yield f"passage {citation.passage} is cited and not there"
            continue
        document, text = answer.passages[citation.passage - 1]
        version = _version(ledger, text)
        cited = answer.text[citation.answer_start : citation.answer_end]
        source = version.content if version else ""
        if document != citation.document_id:
            yield f"{citation.document_id} is cited and passage {citation.passage} is another's"
        elif cited != source[citation.document_start : citation.document_end]:
            yield f"what is cited of {document} is not there: {cited!r}"


def _version(ledger: Ledger, text: str) -> Version | None:
    marker = MARKER.search(text)
    return ledger.versions.get(marker.group()) if marker else None
